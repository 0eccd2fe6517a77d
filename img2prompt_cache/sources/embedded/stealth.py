"""Prompts hidden in the lowest bit of the alpha channel ("stealth pnginfo"), column by column."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import BinaryIO

from img2prompt_cache.sources.embedded.exif import decode

SIGNATURES = {b"stealth_pnginfo": False, b"stealth_pngcomp": True}
"""The first 15 bytes, and whether the rest is compressed with gzip."""
BITS = 15 * 8
LONGEST = 1 << 20
"""Largest hidden text in bytes, decompressed."""
MOST_PIXELS = 1 << 26

_PNG = b"\x89PNG\r\n\x1a\n"


def stealth_text(file: BinaryIO) -> str | None:
    """Read the text that is hidden in the pixels of a PNG.

    Unless there is a signature, only the rows that could contain it are decompressed.

    Parameters
    ----------
    file : binary file
        At its start; seekable.

    Returns
    -------
    str or None
        None if there is no hidden text, or the image has no alpha channel.
    """
    if not _signed(file):
        return None
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    file.seek(0)
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if image.width * image.height > MOST_PIXELS or image.mode != "RGBA":
                return None
            alpha = np.asarray(image.getchannel("A")) & 1
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    data = np.packbits(alpha.T.reshape(-1)).tobytes()
    packed = SIGNATURES.get(data[: BITS // 8])
    if packed is None or len(data) < BITS // 8 + 4:
        return None
    (bits,) = struct.unpack(">I", data[BITS // 8 : BITS // 8 + 4])
    hidden = data[BITS // 8 + 4 :][: min(bits // 8, LONGEST)]
    if packed:
        try:
            hidden = gzip.GzipFile(fileobj=io.BytesIO(hidden)).read(LONGEST)
        except (OSError, EOFError, zlib.error):
            return None
    return decode(hidden)


def _signed(file: BinaryIO) -> bool:
    """Check whether the alpha of the first column spells a signature; only the first rows are read.

    If the image has fewer rows than the signature has bits, its start is compared.
    """
    head = file.read(33)
    if len(head) < 33 or head[:8] != _PNG or head[12:16] != b"IHDR":
        return False
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head[16:29])
    if (depth, colour, interlaced) != (8, 6, 0) or not 0 < width * height <= MOST_PIXELS:
        return False
    row = 1 + 4 * width
    rows = min(height, BITS)
    raw = _unpack_rows(file, row * rows)
    if len(raw) < row * rows:
        return False
    bits, above = [], 0
    for at in range(0, row * rows, row):
        kind, value = raw[at], raw[at + 4]
        # The first pixel has no left neighbour: Up and Paeth add the value above it, Average half of that.
        above = (value + {2: above, 3: above // 2, 4: above}.get(kind, 0)) % 256
        bits.append(above & 1)
    return any(bits == _bits(signature)[: len(bits)] for signature in SIGNATURES)


def _bits(data: bytes) -> list[int]:
    return [byte >> shift & 1 for byte in data for shift in range(7, -1, -1)]


def _unpack_rows(file: BinaryIO, size: int) -> bytes:
    """Decompress the first bytes of the image data."""
    unpacker = zlib.decompressobj()
    found = b""
    while len(found) < size:
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] != b"IDAT":
            file.seek(length + 4, 1)
            continue
        left = length
        while left and len(found) < size:
            piece = file.read(min(left, 1 << 16))
            if not piece:
                return found
            left -= len(piece)
            try:
                found += unpacker.decompress(piece, size - len(found))
            except zlib.error:
                return found
        file.seek(left + 4, 1)
    return found
