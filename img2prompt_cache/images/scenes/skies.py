"""Skies: the time of day, clouds, sun, moon and stars."""

from __future__ import annotations

import random

from PIL import Image

from img2prompt_cache.images.scenes.chance import between, pick
from img2prompt_cache.images.scenes.pen import Colour, Pen, ellipse, gradient, mix, shade
from img2prompt_cache.images.scenes.words import Scene

HORIZON = 0.05
BRIGHT = ((250, 90, 90), (255, 205, 80), (120, 220, 140), (110, 180, 255), (240, 130, 220))
RAINBOW = ((226, 60, 60), (246, 150, 50), (250, 220, 80), (80, 190, 100), (70, 130, 230), (140, 80, 200))
SKIES: dict[str, tuple[Colour, Colour, Colour]] = {
    "dawn": ((126, 152, 214), (226, 190, 214), (255, 224, 196)),
    "noon": ((62, 144, 232), (130, 192, 244), (206, 236, 252)),
    "sunset": ((74, 48, 122), (226, 92, 96), (255, 186, 92)),
    "night": ((8, 12, 42), (22, 30, 78), (54, 66, 124)),
}
"""Colours of the sky at each time: top, middle and horizon."""


def sky(scene: Scene, pixels: int, rng: random.Random) -> Image.Image:
    """Draw the sky of a scene: an RGB square of `pixels`, filled with sky."""
    top, middle, bottom = SKIES[scene.time]
    pen = Pen(pixels)
    # The gradient must reach the colour of the horizon at the horizon, not at the bottom of the picture.
    pen.image.paste(gradient(pixels, top, mix(middle, bottom, 0.6), bottom))
    if scene.detail == "rainbow":
        plain = pen.image.copy()
        for step, colour in enumerate(RAINBOW):
            pen.oval(0, 0.35, 1.02 - 0.045 * step, 1.2 - 0.045 * step, colour)
        inside = Pen(pixels)
        inside.oval(0, 0.35, 0.75, 0.93, (0, 0, 0))
        pen.image.paste(plain, mask=inside.image.getchannel("A"))
    x = pick((-1, 1), rng) * between(rng, 0.45, 0.75)
    if scene.time == "night":
        for _ in range(60):
            r = between(rng, 0.004, 0.014)
            pen.oval(between(rng, -1, 1), between(rng, -1, HORIZON), r, r, (255, 250, 220))
        pen.oval(x, -0.7, 0.15, 0.15, (250, 244, 214))
        for dx, dy, r in ((-0.05, -0.03, 0.035), (0.05, 0.04, 0.03), (0.02, -0.07, 0.02)):
            pen.oval(x + dx, -0.7 + dy, r, r, (220, 212, 184))
    else:
        y, r, sun = {
            "dawn": (-0.25, 0.14, (255, 244, 214)),
            "noon": (-0.72, 0.15, (255, 240, 130)),
            "sunset": (-0.08, 0.26, (255, 226, 120)),
        }[scene.time]
        pen.oval(x, y, r * 1.35, r * 1.35, mix(bottom, sun, 0.35))
        pen.oval(x, y, r, r, sun)
        for _ in range(4):
            _cloud(
                pen,
                between(rng, -1, 1),
                between(rng, -0.9, -0.35),
                between(rng, 0.1, 0.18),
                mix(bottom, (255, 255, 255), 0.6),
            )
    if scene.detail == "fireworks":
        for _ in range(6):
            _burst(
                pen,
                between(rng, -0.85, 0.85),
                between(rng, -0.85, -0.4),
                between(rng, 0.16, 0.28),
                pick(BRIGHT, rng),
            )
    return pen.image.convert("RGB")


def _cloud(pen: Pen, x: float, y: float, r: float, fill: Colour) -> None:
    for dx, dy, part in ((-1.3, 0.2, 0.7), (0, 0, 1), (1.2, 0.2, 0.8)):
        pen.oval(x + dx * r, y + dy * r, part * r * 1.2, part * r * 0.7, fill)


def _burst(pen: Pen, x: float, y: float, r: float, fill: Colour) -> None:
    inner, outer = ellipse(x, y, r * 0.3, r * 0.3), ellipse(x, y, r, r)
    for step in range(0, 48, 4):
        pen.line([inner[step], outer[step]], 0.016, fill)
        pen.oval(*outer[step], 0.025, 0.025, shade(fill, 1.5))
