"""Grounds: the ground or the surroundings of each place."""

from __future__ import annotations

import random
from collections.abc import Callable

from PIL import ImageFilter

from img2prompt_cache.images.scenes.chance import between, pick
from img2prompt_cache.images.scenes.pen import Colour, Pen, mix, shade
from img2prompt_cache.images.scenes.skies import HORIZON


def _hills(pen: Pen, rng: random.Random, top: float, height: float, fill: Colour) -> None:
    """Draw a chain of hills that covers everything below it."""
    for x in (-0.9, -0.3, 0.35, 0.95):
        pen.oval(
            x + between(rng, -0.15, 0.15),
            top + height,
            between(rng, 0.5, 0.7),
            height * between(rng, 0.8, 1.2),
            fill,
        )
    pen.box(-1, top + height, 1, 1, fill)


def _sea(pen: Pen, rng: random.Random) -> None:
    for step in range(10):
        y = HORIZON + step * 0.095
        pen.box(-1, y, 1, 1, mix((84, 168, 206), (20, 84, 150), step / 9))
    for _ in range(26):
        x, y = between(rng, -1, 1), between(rng, HORIZON + 0.08, 0.97)
        width = 0.05 + 0.14 * y
        pen.line(
            [(x - width, y), (x - width / 2, y - 0.02), (x, y), (x + width / 2, y - 0.02), (x + width, y)],
            0.014,
            (150, 208, 230),
        )


def _snowy_hills(pen: Pen, rng: random.Random) -> None:
    _peaks(pen, rng, (140, 160, 196), (244, 248, 255))
    _hills(pen, rng, -0.02, 0.25, (206, 222, 242))
    for _ in range(9):
        _pine(
            pen,
            between(rng, -1, 1),
            between(rng, 0.12, 0.32),
            between(rng, 0.12, 0.2),
            (64, 104, 104),
            snow=True,
        )
    _hills(pen, rng, 0.28, 0.25, (240, 246, 254))


def _peaks(pen: Pen, rng: random.Random, rock: Colour, snow: Colour) -> None:
    for x in (-0.75, 0.05, 0.8):
        x += between(rng, -0.15, 0.15)
        y = between(rng, -0.5, -0.25)
        foot = HORIZON + 0.25
        pen.polygon([(x, y), (x + 0.6, foot), (x - 0.6, foot)], rock)
        pen.polygon(
            [
                (x, y),
                (x + 0.2, y + (foot - y) / 3),
                (x + 0.07, y + 0.14),
                (x, y + 0.22),
                (x - 0.09, y + 0.13),
                (x - 0.2, y + (foot - y) / 3),
            ],
            snow,
        )


def _pine(pen: Pen, x: float, foot: float, r: float, fill: Colour, *, snow: bool = False) -> None:
    pen.box(x - r * 0.12, foot - r * 0.4, x + r * 0.12, foot, (96, 66, 48))
    for step in range(3):
        y, wide = foot - r * (0.3 + 0.65 * step), r * (0.75 - 0.17 * step)
        pen.polygon([(x - wide, y), (x + wide, y), (x, y - r * 1.1)], shade(fill, 0.85 + 0.1 * step))
        if snow:
            pen.polygon(
                [(x - wide * 0.4, y - r * 0.66), (x + wide * 0.4, y - r * 0.66), (x, y - r * 1.1)],
                (240, 246, 252),
            )


def _desert(pen: Pen, rng: random.Random) -> None:
    _hills(pen, rng, -0.02, 0.22, (222, 170, 104))
    _hills(pen, rng, 0.2, 0.25, (234, 188, 120))
    for side in (-0.85, 0.82):
        _cactus(pen, side + between(rng, -0.08, 0.08), between(rng, 0.3, 0.42), between(rng, 0.24, 0.34))
    _hills(pen, rng, 0.42, 0.2, (244, 204, 138))
    for _ in range(12):
        x, y = between(rng, -1, 1), between(rng, 0.62, 0.98)
        pen.line([(x - 0.15, y), (x, y - 0.02), (x + 0.15, y)], 0.014, (224, 180, 112))


def _cactus(pen: Pen, x: float, foot: float, r: float) -> None:
    green = (70, 134, 84)
    pen.line([(x, foot), (x, foot - r * 1.6)], r * 0.3, green)
    pen.line(
        [(x, foot - r * 0.6), (x - r * 0.5, foot - r * 0.6), (x - r * 0.5, foot - r * 1.1)], r * 0.2, green
    )
    pen.line(
        [(x, foot - r * 0.8), (x + r * 0.5, foot - r * 0.8), (x + r * 0.5, foot - r * 1.3)], r * 0.2, green
    )


def _forest(pen: Pen, rng: random.Random) -> None:
    pen.box(-1, HORIZON, 1, 1, (66, 104, 62))
    for row, fill in ((0.12, (58, 104, 88)), (0.24, (42, 88, 62)), (0.36, (30, 70, 46))):
        for step in range(9):
            x = -1 + step * 0.25 + between(rng, -0.06, 0.06)
            _pine(pen, x, row, between(rng, 0.26, 0.4), fill)
    pen.box(-1, 0.34, 1, 1, (74, 112, 64))
    for _ in range(40):
        x, y = between(rng, -1, 1), between(rng, 0.4, 1)
        pen.line([(x, y), (x + 0.02, y - 0.06)], 0.016, (54, 92, 52))


def _city_street(pen: Pen, rng: random.Random) -> None:
    left = -1.05
    while left < 1:
        width, top = between(rng, 0.26, 0.42), between(rng, -0.75, -0.3)
        pen.box(
            left,
            top,
            left + width - 0.03,
            0.5,
            pick(((150, 112, 108), (120, 128, 150), (168, 148, 126), (104, 116, 130)), rng),
        )
        for row in range(int((0.25 - top) / 0.16)):
            for column in range(int(width / 0.11)):
                x, y = left + 0.05 + column * 0.1, top + 0.08 + row * 0.16
                pen.box(x, y, x + 0.055, y + 0.09, (255, 232, 150) if rng.random() < 0.6 else (70, 80, 104))
        left += width
    pen.box(-1, 0.26, 1, 0.42, (184, 180, 176))
    pen.box(-1, 0.42, 1, 1, (92, 94, 104))
    for x in (-0.85, -0.35, 0.15, 0.65):
        pen.polygon([(x, 0.68), (x + 0.26, 0.68), (x + 0.24, 0.73), (x - 0.02, 0.73)], (236, 226, 170))
    for x in (-0.95, 0.95):
        pen.line([(x, 0.42), (x, -0.25), (x * 0.9, -0.3)], 0.03, (50, 52, 62))
        pen.oval(x * 0.88, -0.27, 0.06, 0.05, (255, 246, 190))


def _meadow(pen: Pen, rng: random.Random) -> None:
    _hills(pen, rng, -0.04, 0.22, (124, 180, 110))
    _hills(pen, rng, 0.14, 0.25, (112, 186, 88))
    pen.box(-1, 0.5, 1, 1, (98, 176, 76))
    for _ in range(60):
        x, y = between(rng, -1, 1), between(rng, 0.35, 1)
        pen.line([(x, y), (x + 0.015, y - 0.07)], 0.014, (70, 146, 60))
    for _ in range(34):
        x, y = between(rng, -1, 1), between(rng, 0.35, 1)
        r = 0.012 + 0.014 * y
        pen.oval(x, y, r, r, pick(((246, 246, 240), (246, 228, 130), (236, 170, 214)), rng))


def _volcano(pen: Pen, rng: random.Random) -> None:
    lean = between(rng, -0.25, 0.25)
    for step in range(7):
        pen.oval(
            lean + between(rng, -0.12, 0.2),
            -0.62 - 0.07 * step,
            0.14 + 0.035 * step,
            0.12,
            mix((96, 86, 92), (150, 140, 144), step / 6),
        )
    for _ in range(22):
        x, y = lean + between(rng, -0.34, 0.34), between(rng, -0.98, -0.5)
        pen.line([(lean, -0.42), (x, y)], 0.014, (255, 150, 50))
        pen.oval(x, y, 0.025, 0.025, (255, 190, 70))
    pen.polygon(
        [(lean - 0.2, -0.45), (lean + 0.2, -0.45), (lean + 0.95, 0.45), (lean - 0.95, 0.45)], (94, 70, 70)
    )
    for foot, bend in ((-0.35, -0.12), (0.05, 0.1), (0.42, 0.2)):
        pen.line([(lean + foot * 0.3, -0.44), (lean + bend, -0.1), (lean + foot, 0.36)], 0.07, (250, 100, 40))
        pen.line([(lean + foot * 0.3, -0.44), (lean + bend, -0.1), (lean + foot, 0.36)], 0.03, (255, 200, 90))
    pen.oval(lean, -0.45, 0.2, 0.045, (255, 140, 50))
    _hills(pen, rng, 0.26, 0.18, (74, 58, 62))
    for _ in range(7):
        x, y = between(rng, -1, 1), between(rng, 0.5, 0.98)
        pen.line(
            [(x - 0.13, y), (x - 0.04, y - 0.03), (x + 0.04, y + 0.02), (x + 0.14, y)], 0.025, (250, 110, 50)
        )


def _outer_space(pen: Pen, rng: random.Random) -> None:
    clouds = Pen(pen.image.width)
    for _ in range(5):
        clouds.oval(
            between(rng, -1, 1),
            between(rng, -1, 1),
            between(rng, 0.25, 0.5),
            between(rng, 0.15, 0.3),
            pick(((120, 50, 150), (40, 80, 170), (170, 60, 120)), rng),
            between(rng, 0, 180),
        )
    soft = clouds.image.filter(ImageFilter.GaussianBlur(pen.image.width / 14))
    pen.image.paste(soft, mask=soft.getchannel("A").point(lambda value: value * 0.7))
    for _ in range(130):
        r = between(rng, 0.004, 0.013)
        pen.oval(
            between(rng, -1, 1),
            between(rng, -1, 1),
            r,
            r,
            pick(((255, 255, 255), (255, 236, 190), (190, 214, 255)), rng),
        )
    side = pick((-1, 1), rng)
    x, y = side * 0.68, -0.66
    pen.oval(x, y, 0.42, 0.09, (230, 200, 150), -18)
    pen.oval(x, y, 0.22, 0.22, (216, 150, 90))
    pen.slice(x, y, 0.22, 0.22, 20, 140, (184, 116, 76))
    pen.line([(x + 0.4 * u, y - 0.13 * u + 0.075) for u in (-0.9, -0.4, 0, 0.4, 0.9)], 0.03, (240, 214, 168))
    pen.oval(-side * 0.75, -0.75, 0.13, 0.13, (200, 204, 214))
    pen.oval(-side * 0.78, -0.77, 0.035, 0.035, (160, 164, 178))
    pen.oval(-side * 0.7, -0.71, 0.025, 0.025, (160, 164, 178))
    pen.oval(side * -0.4, 1.32, 0.9, 0.5, (70, 110, 160))
    pen.oval(side * -0.45, 1.36, 0.86, 0.5, (90, 140, 190))


def _underwater(pen: Pen, rng: random.Random) -> None:
    rays = Pen(pen.image.width)
    for _ in range(5):
        x = between(rng, -0.9, 0.9)
        rays.polygon([(x, -1), (x + 0.14, -1), (x + 0.5, 0.8), (x + 0.15, 0.8)], (190, 240, 250))
    soft = rays.image.getchannel("A").filter(ImageFilter.GaussianBlur(pen.image.width / 40))
    pen.image.paste((190, 240, 250), mask=soft.point(lambda value: value * 0.3))
    _hills(pen, rng, 0.62, 0.14, (214, 190, 140))
    for side in (-1, 1):
        for _ in range(4):
            x, foot, r = side * between(rng, 0.5, 1), between(rng, 0.72, 0.92), between(rng, 0.13, 0.26)
            fill = pick(((240, 110, 120), (250, 160, 90), (200, 110, 200), (250, 200, 110)), rng)
            for dx, dy in ((-0.7, -0.9), (-0.25, -1.4), (0.25, -1.3), (0.7, -0.8)):
                pen.line(
                    [(x, foot), (x + dx * r * 0.5, foot + dy * r * 0.5), (x + dx * r, foot + dy * r)],
                    r * 0.25,
                    fill,
                )
    for _ in range(7):
        x, foot = between(rng, -1, 1), between(rng, 0.75, 0.98)
        pen.line(
            [(x, foot), (x + 0.04, foot - 0.14), (x - 0.03, foot - 0.26), (x + 0.03, foot - 0.38)],
            0.04,
            (50, 140, 90),
        )
    for _ in range(26):
        x, y, r = between(rng, -1, 1), between(rng, -1, 0.7), between(rng, 0.012, 0.04)
        pen.oval(x, y, r, r, (190, 232, 244))
        pen.oval(x, y, r * 0.75, r * 0.75, (110, 190, 220))


def _room(pen: Pen, rng: random.Random) -> None:
    for step in range(10):
        pen.box(-1 + step * 0.2, -1, -0.93 + step * 0.2, 0.3, (236, 214, 184))
    pen.box(-1, 0.3, 1, 1, (176, 122, 80))
    pen.box(-1, 0.27, 1, 0.33, (250, 244, 230))
    for step in range(5):
        pen.box(-1, 0.42 + step * 0.13, 1, 0.43 + step * 0.13, (150, 100, 64))
    pen.oval(0, 0.72, 0.85, 0.22, pick(((168, 70, 76), (74, 104, 140), (96, 130, 96)), rng))
    pen.oval(0, 0.72, 0.72, 0.17, (232, 210, 170))
    side = pick((-1, 1), rng)
    pen.box(side * 0.62 - 0.26, -0.85, side * 0.62 + 0.26, -0.2, (250, 246, 236))
    pen.box(side * 0.62 - 0.21, -0.8, side * 0.62 + 0.21, -0.25, (150, 206, 240))
    pen.box(side * 0.62 - 0.02, -0.8, side * 0.62 + 0.02, -0.25, (250, 246, 236))
    for edge in (-0.3, 0.22):
        pen.box(side * 0.62 + edge, -0.9, side * 0.62 + edge + 0.09, -0.1, (196, 104, 96))
    x = -side * 0.84
    pen.line([(x, 0.36), (x, -0.3)], 0.035, (90, 70, 60))
    pen.polygon([(x - 0.1, -0.55), (x + 0.1, -0.55), (x + 0.17, -0.28), (x - 0.17, -0.28)], (255, 230, 150))
    pen.box(-side * 0.3 - 0.2, -0.82, -side * 0.3 + 0.2, -0.5, (110, 76, 50))
    pen.box(-side * 0.3 - 0.16, -0.78, -side * 0.3 + 0.16, -0.54, (190, 214, 190))
    pen.polygon(
        [(-side * 0.3 - 0.16, -0.54), (-side * 0.3, -0.7), (-side * 0.3 + 0.16, -0.54)], (110, 140, 110)
    )


GROUNDS: dict[str, Callable[[Pen, random.Random], None]] = {
    "sea": _sea,
    "snowy hills": _snowy_hills,
    "desert": _desert,
    "forest": _forest,
    "city street": _city_street,
    "meadow": _meadow,
    "volcano": _volcano,
    "outer space": _outer_space,
    "underwater": _underwater,
    "room": _room,
}
