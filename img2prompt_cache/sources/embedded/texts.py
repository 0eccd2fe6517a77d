"""The texts in an image file, by their place."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from img2prompt_cache.sources.embedded.containers import LONGEST_BLOCK, MOST_BYTES, read_blocks
from img2prompt_cache.sources.embedded.exif import decode, exif_texts
from img2prompt_cache.sources.embedded.xmp import iptc_caption, xmp_texts


def read_texts(file: BinaryIO) -> dict[str, str]:
    """Read the texts of a PNG, JPEG, WebP, AVIF, HEIC or JPEG XL file.

    Parameters
    ----------
    file : binary file
        At its start; seekable.

    Returns
    -------
    dict of str to str
        The first text at each place: the keyword of a PNG's text; ``"exif:UserComment"``, …;
        ``"xmp:description"``, …; ``"iptc:caption"``; ``"jpeg:comment"``; ``"prompt"`` and ``"workflow"`` also
        for ComfyUI's graphs in EXIF. Empty for other files, and without texts that are damaged or too long.
    """
    texts: dict[str, str] = {}
    unpacked = 0
    for kind, data in read_blocks(file):
        for place, text in _texts(kind, data):
            unpacked += len(text)
            if unpacked > MOST_BYTES:  # small blocks can decompress to gigabytes
                return texts
            texts.setdefault(place, text)
    return texts


def _texts(kind: str, data: bytes) -> list[tuple[str, str]]:
    if kind == "exif":
        return [
            (name if name in ("prompt", "workflow") else f"exif:{name}", text)
            for name, text in exif_texts(data).items()
        ]
    if kind == "xmp":
        return [(f"xmp:{name}", text) for name, text in xmp_texts(data).items()]
    if kind == "comment":
        return [("jpeg:comment", decode(data).strip("\0"))]
    if kind == "photoshop":
        caption = iptc_caption(data)
        return [("iptc:caption", caption)] if caption else []
    keyword, _, rest = data.partition(b"\0")
    text = _PNG_TEXTS[kind](rest)
    if text is None:
        return []
    name = keyword.decode("latin-1")
    if name == "XML:com.adobe.xmp":
        return _texts("xmp", text.encode(errors="replace"))
    return [(name, text)]


def _unpacked(data: bytes) -> str | None:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, LONGEST_BLOCK)
    except zlib.error:
        return None
    return decode(text) if unpacker.eof else None


def _compressed(rest: bytes) -> str | None:
    return _unpacked(rest[1:])


def _international(rest: bytes) -> str | None:
    packed = rest[:1] == b"\1"
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    return _unpacked(parts[2]) if packed else decode(parts[2])


_PNG_TEXTS = {"tEXt": decode, "zTXt": _compressed, "iTXt": _international}
