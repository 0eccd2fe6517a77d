"""A pen that draws shapes in a square from (-1, -1), top left, to (1, 1), bottom right."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageOps

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Pen:
    """Draws on a transparent square image.

    Parameters
    ----------
    pixels : int
        The side of the image.
    """

    def __init__(self, pixels: int) -> None:
        self.image = Image.new("RGBA", (pixels, pixels))
        self._draw = ImageDraw.Draw(self.image)
        self._half = pixels / 2

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(self._half * (1 + x), self._half * (1 + y)) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._pixels(points), fill=fill)

    def mirrored(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon and its mirror image."""
        self.polygon(points, fill)
        self.polygon([(-x, y) for x, y in points], fill)

    def box(
        self, left: float, top: float, right: float, bottom: float, fill: Colour, radius: float = 0
    ) -> None:
        """Fill a rectangle, its corners rounded by `radius`."""
        self._draw.rounded_rectangle(
            self._pixels([(left, top), (right, bottom)]), radius * self._half, fill=fill
        )

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour, tilt: float = 0) -> None:
        """Fill an ellipse about (x, y), turned clockwise by `tilt` degrees."""
        self.polygon(ellipse(x, y, rx, ry, tilt), fill)

    def ovals(self, x: float, y: float, rx: float, ry: float, fill: Colour, tilt: float = 0) -> None:
        """Fill an ellipse and its mirror image."""
        self.mirrored(ellipse(x, y, rx, ry, tilt), fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """Draw a line with round joints and ends."""
        self._draw.line(self._pixels(points), fill=fill, width=round(width * self._half), joint="curve")
        for x, y in (points[0], points[-1]):
            self.oval(x, y, width / 2, width / 2, fill)

    def slice(self, x: float, y: float, rx: float, ry: float, start: float, end: float, fill: Colour) -> None:
        """Fill the part of an ellipse between two angles, in degrees clockwise from the right."""
        self.polygon(ellipse(x, y, rx, ry, start=start, end=end), fill)


def ellipse(
    x: float, y: float, rx: float, ry: float, tilt: float = 0, start: float = 0, end: float = 360
) -> list[Point]:
    """Compute 49 points of an ellipse, or of the part between two angles in degrees."""
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    points = []
    for step in range(49):
        angle = math.radians(start + (end - start) * step / 48)
        u, v = rx * math.cos(angle), ry * math.sin(angle)
        points.append((x + u * cos - v * sin, y + u * sin + v * cos))
    return points


def shade(colour: Colour, factor: float) -> Colour:
    """Darken a colour (`factor` < 1), or mix it with white (`factor` > 1; 2 is white)."""
    if factor <= 1:
        return mix((0, 0, 0), colour, factor)
    return mix(colour, (255, 255, 255), factor - 1)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two colours, `share` of the second."""
    r, g, b = (round(a + (z - a) * share) for a, z in zip(first, second, strict=True))
    return r, g, b


def gradient(pixels: int, top: Colour, middle: Colour, bottom: Colour) -> Image.Image:
    """Make an RGB square with a gradient of three colours from top to bottom."""
    ramp = Image.linear_gradient("L").resize((pixels, pixels), Image.Resampling.BILINEAR)
    return ImageOps.colorize(ramp, top, bottom, middle)


def lit(picture: Image.Image, light: Colour) -> Image.Image:
    """Light a picture (RGB or RGBA; the result is RGB) with coloured light."""
    return ImageChops.multiply(picture.convert("RGB"), Image.new("RGB", picture.size, light))
