"""Augmented views of an image: random crops with other colours, the same in every pass."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.images.geometry import Geometry

SHARE, ASPECT, COLOUR = (0.5, 1.0), 4 / 3, 0.2
VIEW_RULES = (
    "1: a random box of 50 to 100 % of the area, aspect within 3:4 and 4:3 of the image's; brightness, "
    "contrast and colour within 20 %; seeded by the sha256 of the image's bytes and the number of the view"
)


SQUASH_RULES = "the whole image squashed to the input size, mirrored"


class View(NamedTuple):
    """Which view of an image: its number, and whether it may be mirrored."""

    number: int
    flip: bool = False


SQUASHED = View(-1)
"""The second view, which is not drawn at random; see `squash`."""


def squash(picture: Image.Image, geometry: Geometry) -> NDArray[np.uint8]:
    """Squash a whole image to the input size of a model, and mirror it: what a centre crop leaves out is in.

    Parameters
    ----------
    picture : PIL.Image.Image
        Mode RGB.
    geometry : Geometry
        Of the model; its input size and its filter are used.

    Returns
    -------
    numpy.ndarray, uint8, shape (height, width, 3)
        C-contiguous.
    """
    whole = replace(geometry, resize="squash", size=geometry.crop)
    return np.ascontiguousarray(whole.apply(picture)[:, ::-1])


def take_view(picture: Image.Image, sha256: str, view: View) -> Image.Image:
    """Compute an augmented view of an image; the model's own `Geometry` is applied to it afterwards.

    Parameters
    ----------
    picture : PIL.Image.Image
        Mode RGB.
    sha256 : str
        Hash of the image's bytes, 64 hex digits. It seeds the view: equal images have equal views in every
        pass.
    view : View

    Returns
    -------
    PIL.Image.Image
        Mode RGB, not larger than `picture`.
    """
    random = np.random.default_rng([int(sha256, 16), view.number])
    share, aspect = random.uniform(*SHARE), ASPECT ** random.uniform(-1, 1)
    width = _within(picture.width * math.sqrt(share * aspect), picture.width)
    height = _within(picture.height * math.sqrt(share / aspect), picture.height)
    left = int(random.integers(picture.width - width + 1))
    top = int(random.integers(picture.height - height + 1))
    taken = picture.crop((left, top, left + width, top + height))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        taken = enhance(taken).enhance(random.uniform(1 - COLOUR, 1 + COLOUR))
    if view.flip and random.random() < 0.5:
        return taken.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return taken


def _within(length: float, limit: int) -> int:
    return max(1, min(round(length), limit))
