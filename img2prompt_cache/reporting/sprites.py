"""Sprites: small pictures of many rows in one image, of which a page shows one at a time."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from img2prompt_cache.reporting.pictures import Picture

SIDE, COLUMNS, QUALITY = 48, 32, 55


@dataclass(frozen=True, slots=True)
class Sprite:
    """An image with a cell of `side` pixels for each of many pictures, `columns` in a line.

    `source` is a data URI; `width` and `height` are those of the whole image.
    """

    source: str
    width: int
    height: int
    side: int = SIDE
    columns: int = COLUMNS


def make_sprite(pictures: Sequence[Picture | str]) -> Sprite | None:
    """Put pictures into one; the cell of one that is missing is grey. None where all are missing."""
    from PIL import Image

    if not any(isinstance(each, Picture) for each in pictures):
        return None
    lines = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, lines * SIDE), (128, 128, 128))
    for number, each in enumerate(pictures):
        if isinstance(each, Picture):
            small = Image.open(io.BytesIO(each.thumbnail))  # our own file, not one from anywhere
            small.thumbnail((SIDE, SIDE))
            left = number % COLUMNS * SIDE + (SIDE - small.width) // 2
            sheet.paste(small, (left, number // COLUMNS * SIDE + (SIDE - small.height) // 2))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=QUALITY, method=4)
    source = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Sprite(source, *sheet.size)
