"""Image files in ISO's base media file format (ISO/IEC 14496-12): AVIF, and others that are not read.

AVIF: https://aomediacodec.github.io/av1-avif. Metadata are items of the types Exif and mime; their entries
are renamed, so that the decoder, which would interpret them, does not find them. The rotation and the
mirroring of an AVIF are properties of the image and stay.
"""

from __future__ import annotations

import re

AVIF = frozenset((b"avif", b"avis"))
HEIC = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"heif")
)
_METADATA = re.compile(rb"(infe(?:\x02.{3}.{4}|\x03.{3}.{6}))(?:Exif|mime)", re.DOTALL)
"""Entry of an item, version 2 or 3: flags, its number in 2 or 4 bytes, its protection, its type."""


def kind_of(data: bytes) -> str:
    """Tell the kind of a file by its brands: ``"AVIF"``, ``"HEIC"``, or ``"video"`` for any other.

    Parameters
    ----------
    data : bytes
        Starting with a box of the type ``ftyp``.
    """
    end = min(int.from_bytes(data[:4], "big"), len(data), 1024)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & AVIF:
        return "AVIF"
    return "HEIC" if brands & HEIC else "video"


def is_whole(data: bytes) -> bool:
    """Check that the last box of a file does not end after the file."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0: up to the end of the file; anything else is damage, which the decoder reports
            return True
        at += size
    return at == len(data)


def without_metadata(data: bytes) -> bytes:
    """Hide the EXIF and XMP of an AVIF; the length, and so every position in the file, stays."""
    return _METADATA.sub(rb"\1skip", data)
