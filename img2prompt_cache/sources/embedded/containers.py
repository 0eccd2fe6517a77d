"""Image files as containers: the blocks with text, read without decoding pixels.

Pillow must decode the pixels of a PNG to read texts stored after them, and warns about damaged EXIF. Here
every length is checked against a limit, and reading stops at damage.

PNG: W3C PNG 3rd edition, 11.3.3 (tEXt, zTXt, iTXt, eXIf). JPEG: EXIF and XMP in APP1, Photoshop's resources
in APP13, comments in COM. WebP: the EXIF and XMP chunks of a RIFF container. AVIF, HEIC and
JPEG XL: see `boxes`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from img2prompt_cache.sources.embedded.boxes import read_boxes

LONGEST_BLOCK = 8 << 20
"""Largest block in bytes, as stored."""
MOST_BYTES = 4 * LONGEST_BLOCK
"""Largest sum of the sizes of a file's blocks."""
MOST_BLOCKS = 10_000

_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"

Block = tuple[str, bytes]
"""Kind and bytes. Kinds: tEXt, zTXt and iTXt of a PNG; exif, xmp, photoshop and comment of any file."""


def read_blocks(file: BinaryIO) -> Iterator[Block]:
    """Read the blocks of an image file that may hold text, in the order of the file.

    Parameters
    ----------
    file : binary file
        At its start; seekable.

    Yields
    ------
    tuple of (str, bytes)
        Nothing for other kinds of files, and nothing after damage or after `MOST_BYTES`.
    """
    head = file.read(12)
    if head.startswith(_PNG):
        file.seek(len(_PNG))
        blocks = _png(file)
    elif head.startswith(b"\xff\xd8"):
        file.seek(2)
        blocks = _jpeg(file)
    elif head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        blocks = _webp(file)
    elif head[4:8] in (b"ftyp", b"JXL "):
        file.seek(0)
        blocks = read_boxes(file)
    else:
        return
    total = 0
    for kind, data in blocks:
        total += len(data)
        if total > MOST_BYTES:
            return
        yield kind, data


def _png(file: BinaryIO) -> Iterator[Block]:
    for _ in range(MOST_BLOCKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        size, kind = struct.unpack(">I4s", head)
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf") or size > LONGEST_BLOCK:
            file.seek(size + 4, 1)
            continue
        data = file.read(size)
        if len(data) < size:
            return
        file.seek(4, 1)
        yield ("exif", data) if kind == b"eXIf" else (kind.decode(), data)


def _jpeg(file: BinaryIO) -> Iterator[Block]:
    for _ in range(MOST_BLOCKS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return
        size = max(int.from_bytes(head[2:], "big") - 2, 0)
        if head[1] not in (0xE1, 0xED, 0xFE):
            file.seek(size, 1)
            continue
        data = file.read(size)
        if head[1] == 0xFE:
            yield "comment", data
        for prefix, kind in ((_EXIF, "exif"), (_XMP, "xmp"), (_PHOTOSHOP, "photoshop")):
            if head[1] != 0xFE and data.startswith(prefix):
                yield kind, data[len(prefix) :]


def _webp(file: BinaryIO) -> Iterator[Block]:
    for _ in range(MOST_BLOCKS):
        head = file.read(8)
        if len(head) < 8:
            return
        size = int.from_bytes(head[4:], "little")
        kind = {b"EXIF": "exif", b"XMP ": "xmp"}.get(head[:4])
        if kind is None or size > LONGEST_BLOCK:
            file.seek(size + size % 2, 1)
            continue
        data = file.read(size)
        file.seek(size % 2, 1)
        yield kind, data.removeprefix(_EXIF) if kind == "exif" else data
