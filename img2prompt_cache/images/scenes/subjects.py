"""Subjects: a drawing of each, in the colour that the prompt names, standing on y = 1."""

from __future__ import annotations

from collections.abc import Callable

from img2prompt_cache.images.scenes.pen import Colour, Pen, shade

INK = (38, 34, 52)
WHITE = (250, 250, 246)
CREAM = (246, 232, 202)
WOOD = (128, 84, 52)
STONE = (150, 146, 150)
GLASS = (176, 220, 240)
GLOW = (255, 226, 120)
LEAF = (70, 140, 70)


def boat(pen: Pen, body: Colour) -> None:
    """A sailing boat."""
    pen.line([(0, 0.45), (0, -0.95)], 0.07, WOOD)
    pen.polygon([(0.08, -0.88), (0.08, 0.3), (0.78, 0.3)], WHITE)
    pen.polygon([(-0.08, -0.68), (-0.08, 0.3), (-0.62, 0.3)], shade(WHITE, 0.88))
    pen.polygon([(0.04, -0.97), (0.4, -0.87), (0.04, -0.77)], body)
    pen.polygon([(-0.95, 0.4), (0.95, 0.4), (0.62, 0.95), (-0.62, 0.95)], body)
    pen.polygon([(-0.95, 0.4), (0.95, 0.4), (0.88, 0.52), (-0.88, 0.52)], shade(body, 1.5))


def house(pen: Pen, body: Colour) -> None:
    """A house with a door, two windows and a chimney."""
    pen.box(0.38, -0.85, 0.6, -0.3, shade(STONE, 0.7))
    pen.box(-0.7, -0.2, 0.7, 1, body)
    pen.polygon([(-0.95, -0.12), (0, -0.95), (0.95, -0.12)], shade(body, 0.55))
    pen.box(-0.18, 0.35, 0.18, 1, WOOD, 0.05)
    pen.oval(0.1, 0.7, 0.035, 0.035, GLOW)
    for x in (-0.45, 0.45):
        pen.box(x - 0.17, 0, x + 0.17, 0.36, WHITE)
        pen.box(x - 0.13, 0.04, x + 0.13, 0.32, GLOW)
        pen.line([(x, 0.04), (x, 0.32)], 0.03, WHITE)


def tree(pen: Pen, body: Colour) -> None:
    """A tree with a round crown in the named colour."""
    pen.polygon([(-0.13, 0.1), (0.13, 0.1), (0.2, 1), (-0.2, 1)], WOOD)
    pen.line([(0, 0.45), (0.3, 0.15)], 0.09, WOOD)
    for x, y, r in ((-0.42, -0.05, 0.42), (0.42, -0.05, 0.42), (0, 0.02, 0.42)):
        pen.oval(x, y, r, r * 0.9, shade(body, 0.75))
    for x, y, r in ((-0.32, -0.28, 0.4), (0.32, -0.28, 0.4), (0, -0.55, 0.42)):
        pen.oval(x, y, r, r, body)
    for x, y in ((-0.3, -0.45), (0.05, -0.72), (0.36, -0.4)):
        pen.oval(x, y, 0.13, 0.09, shade(body, 1.35))


def cat(pen: Pen, body: Colour) -> None:
    """A sitting cat, seen from the front."""
    pen.line([(0.4, 0.88), (0.72, 0.8), (0.8, 0.5), (0.68, 0.28)], 0.16, shade(body, 0.85))
    pen.oval(0, 0.58, 0.46, 0.46, body)
    pen.oval(0, 0.66, 0.24, 0.32, shade(body, 1.4))
    pen.ovals(0.2, 0.92, 0.16, 0.09, shade(body, 1.4))
    pen.mirrored([(0.1, -0.55), (0.48, -0.95), (0.54, -0.2)], body)
    pen.mirrored([(0.2, -0.5), (0.43, -0.75), (0.46, -0.3)], (240, 160, 170))
    pen.oval(0, -0.2, 0.55, 0.44, body)
    pen.ovals(0.22, -0.26, 0.13, 0.15, GLOW)
    pen.ovals(0.22, -0.26, 0.045, 0.13, INK)
    pen.oval(0, -0.05, 0.16, 0.1, shade(body, 1.6))
    pen.polygon([(-0.07, -0.1), (0.07, -0.1), (0, -0.02)], (220, 110, 120))
    for y in (-0.07, 0.05):
        pen.line([(0.22, 0), (0.72, y)], 0.02, shade(body, 0.5))
        pen.line([(-0.22, 0), (-0.72, y)], 0.02, shade(body, 0.5))


def fish(pen: Pen, body: Colour) -> None:
    """A fish with fins, stripes and a big eye."""
    pen.polygon([(-0.4, 0), (-0.98, -0.5), (-0.82, 0), (-0.98, 0.5)], shade(body, 0.75))
    pen.polygon([(-0.35, -0.4), (0.1, -0.82), (0.35, -0.35)], shade(body, 0.75))
    pen.polygon([(-0.2, 0.4), (0.0, 0.75), (0.25, 0.38)], shade(body, 0.75))
    pen.oval(0.12, 0, 0.78, 0.48, body)
    for x in (-0.32, -0.02):
        pen.polygon(
            [(x, -0.42), (x + 0.13, -0.45), (x + 0.08, 0), (x + 0.13, 0.45), (x, 0.42), (x - 0.05, 0)], WHITE
        )
    pen.oval(0.5, -0.12, 0.16, 0.16, WHITE)
    pen.oval(0.53, -0.12, 0.08, 0.09, INK)
    pen.line([(0.72, 0.16), (0.6, 0.22), (0.5, 0.2)], 0.04, shade(body, 0.45))
    pen.oval(0.2, 0.12, 0.16, 0.09, shade(body, 0.75), 20)


def rocket(pen: Pen, body: Colour) -> None:
    """A rocket with fins, a porthole and a flame."""
    pen.polygon([(-0.26, 0.6), (0.26, 0.6), (0.12, 0.85), (0, 1), (-0.12, 0.85)], (250, 150, 40))
    pen.polygon([(-0.14, 0.6), (0.14, 0.6), (0, 0.85)], GLOW)
    pen.mirrored([(0.3, 0.1), (0.66, 0.48), (0.66, 0.82), (0.3, 0.6)], shade(body, 0.7))
    pen.polygon(
        [
            (0, -1),
            (0.22, -0.72),
            (0.36, -0.3),
            (0.38, 0.2),
            (0.3, 0.62),
            (-0.3, 0.62),
            (-0.38, 0.2),
            (-0.36, -0.3),
            (-0.22, -0.72),
        ],
        body,
    )
    pen.polygon([(0, -1), (0.22, -0.72), (0.3, -0.5), (-0.3, -0.5), (-0.22, -0.72)], shade(STONE, 1.5))
    pen.oval(0, -0.12, 0.22, 0.22, shade(STONE, 1.5))
    pen.oval(0, -0.12, 0.15, 0.15, GLASS)
    pen.line([(-0.34, 0.38), (0.34, 0.38)], 0.06, shade(body, 0.6))


def mushroom(pen: Pen, body: Colour) -> None:
    """A toadstool with white spots."""
    pen.polygon([(-0.22, 0), (0.22, 0), (0.3, 0.9), (0.2, 1), (-0.2, 1), (-0.3, 0.9)], CREAM)
    pen.oval(0, 0.1, 0.72, 0.16, shade(CREAM, 0.75))
    pen.slice(0, 0.1, 0.95, 1.0, 180, 360, body)
    pen.oval(0, 0.1, 0.95, 0.13, shade(body, 0.75))
    pen.slice(0, 0.07, 0.95, 0.16, 180, 360, body)
    for x, y, r in (
        (0, -0.5, 0.2),
        (-0.5, -0.22, 0.15),
        (0.52, -0.26, 0.16),
        (0.1, -0.08, 0.1),
        (-0.3, -0.62, 0.09),
    ):
        pen.oval(x, y, r, r * 0.85, WHITE)


def bird(pen: Pen, body: Colour) -> None:
    """A flying bird, wings up."""
    pen.polygon([(-0.5, 0.25), (-0.98, 0.05), (-0.92, 0.3), (-0.98, 0.5)], shade(body, 0.7))
    pen.polygon([(0.25, 0.1), (0.3, -0.75), (0.12, -0.88), (-0.12, -0.45), (-0.1, 0.1)], shade(body, 0.6))
    pen.oval(0, 0.25, 0.6, 0.33, body, -8)
    pen.oval(0.05, 0.4, 0.4, 0.17, shade(body, 1.5), -8)
    pen.oval(0.52, 0, 0.28, 0.27, body)
    pen.polygon([(0.75, -0.1), (1, 0.05), (0.75, 0.12)], (250, 170, 40))
    pen.oval(0.6, -0.06, 0.08, 0.08, WHITE)
    pen.oval(0.62, -0.06, 0.045, 0.05, INK)
    pen.polygon(
        [(0.2, 0.3), (-0.05, -0.6), (-0.3, -0.98), (-0.45, -0.7), (-0.55, -0.4), (-0.45, 0), (-0.2, 0.3)],
        shade(body, 0.8),
    )
    for x, y in ((-0.38, -0.6), (-0.42, -0.3)):
        pen.line([(x, y), (x + 0.2, y + 0.5)], 0.03, shade(body, 0.5))


def car(pen: Pen, body: Colour) -> None:
    """A small car, seen from the side."""
    pen.polygon([(-0.62, 0.2), (-0.42, -0.28), (0.28, -0.28), (0.58, 0.2)], body)
    pen.polygon([(-0.5, 0.18), (-0.35, -0.18), (-0.1, -0.18), (-0.1, 0.18)], GLASS)
    pen.polygon([(0, 0.18), (0, -0.18), (0.23, -0.18), (0.44, 0.18)], GLASS)
    pen.box(-0.97, 0.15, 0.97, 0.72, body, 0.2)
    pen.box(-0.95, 0.5, 0.95, 0.6, shade(body, 0.65))
    pen.oval(0.86, 0.34, 0.08, 0.09, GLOW)
    pen.oval(-0.9, 0.34, 0.05, 0.09, (230, 60, 50))
    pen.box(-0.02, 0.26, 0.12, 0.31, shade(body, 0.5))
    for x in (-0.52, 0.52):
        pen.oval(x, 0.72, 0.26, 0.26, INK)
        pen.oval(x, 0.72, 0.12, 0.12, shade(STONE, 1.4))


def robot(pen: Pen, body: Colour) -> None:
    """A waving robot."""
    grey = shade(STONE, 1.2)
    pen.line([(0, -0.7), (0, -0.9)], 0.05, grey)
    pen.oval(0, -0.92, 0.08, 0.08, (240, 70, 60))
    pen.line([(-0.45, 0.1), (-0.8, 0.4), (-0.78, 0.55)], 0.13, grey)
    pen.line([(0.45, 0.1), (0.8, -0.12), (0.82, -0.4)], 0.13, grey)
    for x in (-0.25, 0.25):
        pen.box(x - 0.08, 0.6, x + 0.08, 0.92, grey)
        pen.box(x - 0.2, 0.85, x + 0.2, 1, shade(body, 0.6), 0.06)
    pen.box(-0.48, -0.02, 0.48, 0.68, body, 0.1)
    pen.box(-0.28, 0.14, 0.28, 0.46, shade(body, 0.5), 0.05)
    for x, fill in ((-0.15, (240, 70, 60)), (0, GLOW), (0.15, (80, 210, 110))):
        pen.oval(x, 0.3, 0.055, 0.055, fill)
    pen.box(-0.14, -0.15, 0.14, 0.02, grey)
    pen.box(-0.44, -0.72, 0.44, -0.1, body, 0.12)
    pen.box(-0.34, -0.6, 0.34, -0.24, INK, 0.08)
    pen.ovals(0.16, -0.43, 0.1, 0.1, (120, 240, 250))


def flower(pen: Pen, body: Colour) -> None:
    """A daisy with eight petals."""
    pen.line([(0, -0.2), (0.05, 0.4), (0, 0.98)], 0.09, LEAF)
    pen.oval(0.27, 0.6, 0.28, 0.11, LEAF, -30)
    pen.oval(-0.25, 0.72, 0.28, 0.11, LEAF, 30)
    for turn in range(0, 180, 45):
        for sign in (-1, 1):
            points = _turned(0.36 * sign, turn)
            pen.oval(points[0], points[1] - 0.32, 0.31, 0.17, body if turn % 90 else shade(body, 0.85), turn)
    pen.oval(0, -0.32, 0.2, 0.2, (240, 180, 40) if body[2] > 90 else WOOD)
    pen.oval(-0.05, -0.37, 0.08, 0.07, shade(GLOW, 1.3))


def _turned(x: float, degrees: int) -> tuple[float, float]:
    cos, sin = {0: (1.0, 0.0), 45: (0.7071, 0.7071), 90: (0.0, 1.0), 135: (-0.7071, 0.7071)}[degrees]
    return x * cos, x * sin


def castle(pen: Pen, body: Colour) -> None:
    """A castle with three towers, flags and a gate."""
    dark = shade(body, 0.6)
    for x, top in ((-0.68, -0.35), (0.68, -0.35), (0, -0.5)):
        pen.line([(x, top - 0.35), (x, top - 0.5)], 0.03, WOOD)
        pen.box(x - 0.22, top, x + 0.22, 0.9, shade(body, 0.85))
        pen.polygon([(x - 0.28, top), (x, top - 0.42), (x + 0.28, top)], dark)
        pen.box(x - 0.06, top + 0.12, x + 0.06, top + 0.36, INK, 0.06)
    pen.box(-0.8, 0.25, 0.8, 1, body)
    for x in (-0.7, -0.42, -0.14, 0.14, 0.42, 0.7):
        pen.box(x - 0.09, 0.12, x + 0.09, 0.28, body)
    pen.oval(0, 0.65, 0.22, 0.22, INK)
    pen.box(-0.22, 0.65, 0.22, 1, INK)
    for x in (-0.11, 0, 0.11):
        pen.line([(x, 0.5), (x, 0.98)], 0.03, WOOD)


def balloon(pen: Pen, body: Colour) -> None:
    """A hot air balloon with stripes and a basket."""
    for x in (-0.16, 0.16):
        pen.line([(x * 2, 0.2), (x, 0.75)], 0.03, WOOD)
    pen.polygon([(-0.62, -0.1), (0.62, -0.1), (0.2, 0.5), (-0.2, 0.5)], body)
    pen.oval(0, -0.32, 0.68, 0.66, body)
    pen.polygon([(-0.34, -0.1), (0.34, -0.1), (0.12, 0.5), (-0.12, 0.5)], CREAM)
    pen.oval(0, -0.32, 0.38, 0.655, CREAM)
    pen.polygon([(-0.13, -0.1), (0.13, -0.1), (0.05, 0.5), (-0.05, 0.5)], body)
    pen.oval(0, -0.32, 0.14, 0.66, body)
    pen.box(-0.2, 0.72, 0.2, 0.98, WOOD, 0.05)
    pen.line([(-0.19, 0.76), (0.19, 0.76)], 0.06, shade(WOOD, 1.4))


def snowman(pen: Pen, body: Colour) -> None:
    """A snowman with hat, carrot and twigs for arms."""
    pen.line([(0.3, 0.1), (0.82, -0.22)], 0.05, WOOD)
    pen.line([(-0.3, 0.1), (-0.82, -0.22)], 0.05, WOOD)
    pen.oval(0, 0.62, 0.48, 0.4, shade(body, 0.9))
    pen.oval(0, 0.08, 0.37, 0.33, body)
    pen.oval(0, -0.4, 0.29, 0.28, body)
    for y in (0, 0.17):
        pen.oval(0, y, 0.045, 0.045, INK)
    pen.ovals(0.11, -0.46, 0.045, 0.05, INK)
    pen.polygon([(0, -0.42), (0.34, -0.34), (0, -0.32)], (250, 140, 40))
    pen.line([(-0.12, -0.26), (0, -0.21), (0.12, -0.26)], 0.03, INK)
    pen.box(-0.36, -0.66, 0.36, -0.58, INK, 0.03)
    pen.box(-0.22, -0.98, 0.22, -0.6, INK, 0.03)
    pen.box(-0.22, -0.74, 0.22, -0.66, (200, 50, 50))


def butterfly(pen: Pen, body: Colour) -> None:
    """A butterfly with open wings."""
    pen.ovals(0.5, -0.34, 0.5, 0.36, shade(body, 0.6), -40)
    pen.ovals(0.48, -0.34, 0.38, 0.25, body, -40)
    pen.ovals(0.38, 0.42, 0.36, 0.3, shade(body, 0.6), 50)
    pen.ovals(0.37, 0.41, 0.25, 0.19, shade(body, 1.25), 50)
    pen.ovals(0.6, -0.45, 0.12, 0.12, WHITE)
    pen.ovals(0.42, 0.5, 0.08, 0.08, WHITE)
    pen.line([(0.03, -0.4), (0.2, -0.85)], 0.03, INK)
    pen.line([(-0.03, -0.4), (-0.2, -0.85)], 0.03, INK)
    pen.oval(0, 0.1, 0.09, 0.55, INK)
    pen.oval(0, -0.42, 0.11, 0.11, INK)


def ghost(pen: Pen, body: Colour) -> None:
    """A friendly ghost."""
    pen.slice(0, -0.25, 0.62, 0.7, 180, 360, body)
    pen.polygon(
        [
            (-0.62, -0.26),
            (0.62, -0.26),
            (0.68, 0.95),
            (0.44, 0.7),
            (0.22, 0.98),
            (0, 0.7),
            (-0.22, 0.98),
            (-0.44, 0.7),
            (-0.68, 0.95),
        ],
        body,
    )
    pen.ovals(0.7, 0.15, 0.22, 0.12, body, -35)
    face = INK if sum(body) > 250 else WHITE
    pen.ovals(0.22, -0.3, 0.12, 0.18, face)
    pen.oval(0, 0.1, 0.11, 0.16, face)
    pen.ovals(0.4, -0.02, 0.09, 0.06, (246, 150, 160))


def whale(pen: Pen, body: Colour) -> None:
    """A whale with a water spout."""
    for sign in (-1, 1):
        pen.line(
            [(0.25, -0.2), (0.25, -0.55), (0.25 + 0.2 * sign, -0.78), (0.25 + 0.36 * sign, -0.6)], 0.08, GLASS
        )
    pen.polygon(
        [
            (-0.5, 0.35),
            (-0.72, -0.05),
            (-0.98, -0.3),
            (-0.7, -0.3),
            (-0.62, -0.45),
            (-0.48, -0.2),
            (-0.2, 0.2),
        ],
        shade(body, 0.8),
    )
    pen.slice(0.15, 0.35, 0.8, 0.56, 180, 360, body)
    pen.slice(0.15, 0.34, 0.8, 0.55, 0, 180, shade(body, 0.9))
    pen.slice(0.3, 0.45, 0.62, 0.42, 0, 180, shade(body, 1.75))
    for x in (0.1, 0.3, 0.5):
        pen.line([(x, 0.55), (x + 0.02, 0.76)], 0.03, shade(body, 0.9))
    pen.oval(0.62, 0.22, 0.08, 0.09, WHITE)
    pen.oval(0.63, 0.22, 0.05, 0.055, INK)
    pen.oval(-0.02, 0.72, 0.28, 0.12, shade(body, 0.65), 35)


def lighthouse(pen: Pen, body: Colour) -> None:
    """A striped lighthouse on rocks, with its light on."""
    pen.polygon([(0, -0.62), (-0.95, -0.85), (-0.95, -0.4)], shade(GLOW, 1.3))
    pen.polygon([(0, -0.62), (0.95, -0.85), (0.95, -0.4)], shade(GLOW, 1.3))
    for step in range(5):
        top, bottom = -0.42 + 0.26 * step, -0.16 + 0.26 * step
        left, right = 0.2 + 0.045 * step, 0.245 + 0.045 * step
        pen.polygon(
            [(-left, top), (left, top), (right, bottom), (-right, bottom)], WHITE if step % 2 else body
        )
    pen.box(-0.17, -0.76, 0.17, -0.42, GLOW)
    pen.line([(0, -0.76), (0, -0.42)], 0.03, INK)
    pen.box(-0.27, -0.48, 0.27, -0.4, INK)
    pen.polygon([(-0.24, -0.74), (0, -0.99), (0.24, -0.74)], body)
    pen.box(-0.08, 0.62, 0.08, 0.88, INK, 0.05)
    for x, r in ((-0.42, 0.24), (0.42, 0.24), (-0.08, 0.2), (0.2, 0.18)):
        pen.slice(x, 1, r, r * 0.9, 180, 360, STONE if r < 0.22 else shade(STONE, 0.8))


DRAW: dict[str, Callable[[Pen, Colour], None]] = {
    "boat": boat,
    "house": house,
    "tree": tree,
    "cat": cat,
    "fish": fish,
    "rocket": rocket,
    "mushroom": mushroom,
    "bird": bird,
    "car": car,
    "robot": robot,
    "flower": flower,
    "castle": castle,
    "hot air balloon": balloon,
    "snowman": snowman,
    "butterfly": butterfly,
    "ghost": ghost,
    "whale": whale,
    "lighthouse": lighthouse,
}
