"""The blocks with text in files that consist of boxes: AVIF and HEIC, and JPEG XL.

In AVIF and HEIC, EXIF and XMP are items: the box iinf names them, iloc says where they are (ISO/IEC 14496-12,
8.11). In JPEG XL they are boxes of their own (ISO/IEC 18181-2), which are read unless they are compressed.
Every position may be wrong, and reading stops at the first one that leads out of its box.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

LONGEST = 8 << 20
"""Largest box with metadata, and largest item, in bytes."""
MOST_BOXES = 10_000

Block = tuple[str, bytes]
Extents = list[tuple[bool, int, int]]
"""Pieces of an item: whether it lies in the box idat instead of the file, its position and its length."""


def read_boxes(file: BinaryIO) -> Iterator[Block]:
    """Read the blocks that may hold text, in the order of the file: kinds ``"exif"`` and ``"xmp"``.

    Parameters
    ----------
    file : binary file
        At its start; seekable.
    """
    start = 0
    for _ in range(MOST_BOXES):
        file.seek(start)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        body = start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:], "big"), start + 16
        if len(head) < 8 or size > 1 << 62 or (size and size < body - start):
            return
        if kind in (b"meta", b"Exif", b"xml "):
            file.seek(body)
            data = file.read(min(start + size - body if size else LONGEST, LONGEST))
            if kind == b"meta":
                yield from _items(file, data)
            else:
                yield _block(kind, data)
        if not size:  # the box goes to the end of the file
            return
        start += size


def _items(file: BinaryIO, meta: bytes) -> Iterator[Block]:
    boxes = dict(_boxes(meta, 4))
    places = _places(boxes.get(b"iloc", b""))
    for item, kind in _kinds(boxes.get(b"iinf", b"")):
        parts = []
        left = LONGEST
        for inside, at, size in places.get(item, []):
            if size > left:
                return
            left -= size
            if inside:
                parts.append(boxes.get(b"idat", b"")[at : at + size])
            else:
                file.seek(at)
                parts.append(file.read(size))
        if parts:
            yield _block(kind, b"".join(parts))


def _block(kind: bytes, data: bytes) -> Block:
    if kind != b"Exif":
        return "xmp", data
    start = 4 + int.from_bytes(data[:4], "big")  # where the TIFF header is, counted from after this number
    return "exif", data[start:].removeprefix(b"Exif\0\0")


def _boxes(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the contents of the boxes inside a box."""
    for _ in range(MOST_BOXES):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8 or at + size > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def _kinds(iinf: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the kind of every item with text."""
    for kind, entry in _boxes(iinf, 6 if iinf[:1] == b"\0" else 8):
        width = {b"\2": 2, b"\3": 4}.get(entry[:1])
        if kind != b"infe" or width is None:
            continue
        item, named = int.from_bytes(entry[4 : 4 + width], "big"), entry[6 + width :]
        if named.startswith(b"Exif") or (named.startswith(b"mime") and b"\0application/rdf+xml\0" in named):
            yield item, named[:4]


def _places(iloc: bytes) -> dict[int, Extents]:
    """Read where every item is."""
    version = iloc[:1]
    wide = 4 if version == b"\2" else 2
    widths = [nibble for byte in iloc[4:6] for nibble in (byte >> 4, byte & 15)]
    if len(widths) < 4 or version not in (b"\0", b"\1", b"\2"):
        return {}
    offset_width, length_width, base_width, index_width = widths
    if version == b"\0":
        index_width = 0
    at = 6

    def number(width: int) -> int:
        nonlocal at
        at += width
        return int.from_bytes(iloc[at - width : at], "big")

    places: dict[int, Extents] = {}
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version != b"\0" else 0
        number(2)  # which file; only this one is read
        base = number(base_width)
        extents = []
        for _ in range(number(2)):
            number(index_width)
            extents.append((method == 1, base + number(offset_width), number(length_width)))
            if at > len(iloc):
                return places
        if at > len(iloc):
            return places
        if method < 2:
            places.setdefault(item, extents)
    return places
