"""The texts an image file carries, read from its chunks without decoding a pixel.

Pillow reads the texts behind the pixels of a PNG only by decoding them, and warns about damaged EXIF; here
every length is checked against a limit and damage ends the reading.

PNG: W3C PNG 3rd edition, 11.3.3 (tEXt, zTXt, iTXt). EXIF: TIFF 6.0 directories, in a JPEG's APP1 segment or
in the EXIF chunk of a WebP's RIFF container.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

LONGEST_TEXT = 8 << 20
"""Bytes of one text, unpacked."""
MOST_TEXT = 4 * LONGEST_TEXT
"""Bytes of all texts of a PNG, as they lie in the file and unpacked: small ones, too, unpack to gigabytes."""
MOST_CHUNKS = 10_000

USER_COMMENT, EXIF_POINTER, MAKE, MODEL = 0x9286, 0x8769, 0x010F, 0x0110

_PNG = b"\x89PNG\r\n\x1a\n"


def read_texts(file: BinaryIO) -> dict[str, str]:
    """Read the texts of a PNG, JPEG or WebP file.

    Parameters
    ----------
    file : binary file
        At its start; seekable.

    Returns
    -------
    dict of str to str
        PNG: keyword to text, the first of each keyword. JPEG and WebP: ``parameters`` for the EXIF user
        comment, ``prompt`` for what ComfyUI puts into the camera's model. Empty for anything else, and
        without what is damaged or too long.
    """
    head = file.read(12)
    if head.startswith(_PNG):
        file.seek(len(_PNG))
        return _png(file)
    if head.startswith(b"\xff\xd8"):
        file.seek(2)
        return _exif_texts(_jpeg_exif(file))
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return _exif_texts(_webp_exif(file))
    return {}


def _png(file: BinaryIO) -> dict[str, str]:
    texts: dict[str, str] = {}
    total = 0
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        size, kind = struct.unpack(">I4s", head)
        if kind not in (b"tEXt", b"zTXt", b"iTXt") or size > LONGEST_TEXT:
            file.seek(size + 4, 1)
            continue
        total += size
        data = file.read(size)
        if len(data) < size or total > MOST_TEXT:
            break
        file.seek(4, 1)
        keyword, _, rest = data.partition(b"\0")
        text = _PNG_TEXTS[kind](rest)
        if text is not None:
            total += len(text)
            texts.setdefault(keyword.decode("latin-1"), text)
    return texts


def _text(data: bytes) -> str:
    # tEXt is Latin-1 by the book, but programs write UTF-8 too; Latin-1 is hardly ever valid UTF-8 by chance.
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _unpacked(data: bytes) -> str | None:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, LONGEST_TEXT)
    except zlib.error:
        return None
    return _text(text) if unpacker.eof else None


def _compressed(rest: bytes) -> str | None:
    return _unpacked(rest[1:])


def _international(rest: bytes) -> str | None:
    packed = rest[:1] == b"\1"
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    return _unpacked(parts[2]) if packed else _text(parts[2])


_PNG_TEXTS = {b"tEXt": _text, b"zTXt": _compressed, b"iTXt": _international}


def _jpeg_exif(file: BinaryIO) -> bytes:
    for _ in range(MOST_CHUNKS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            break
        size = int.from_bytes(head[2:], "big") - 2
        if head[1] == 0xE1:
            data = file.read(max(size, 0))
            if data.startswith(b"Exif\0\0"):
                return data[6:]
        elif size > 0:
            file.seek(size, 1)
    return b""


def _webp_exif(file: BinaryIO) -> bytes:
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            return file.read(min(size, LONGEST_TEXT)).removeprefix(b"Exif\0\0")
        file.seek(size + size % 2, 1)
    return b""


def _exif_texts(data: bytes) -> dict[str, str]:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return {}
    first = _directory(data, data[4:8], order)
    second = _directory(data, first.get(EXIF_POINTER, b""), order)
    texts: dict[str, str] = {}
    comment = _user_comment(second.get(USER_COMMENT, b""))
    if comment:
        texts["parameters"] = comment
    for tag in (MODEL, MAKE):
        text = _text(first.get(tag, b"").rstrip(b"\0"))
        if text.lower().startswith("prompt:"):
            texts.setdefault("prompt", text[len("prompt:") :])
    return texts


def _directory(data: bytes, pointer: bytes, order: str) -> dict[int, bytes]:
    """Read the one-byte values, and the pointers, of a directory; a pointer keeps its four bytes."""
    if len(pointer) != 4:
        return {}
    (start,) = struct.unpack(f"{order}I", pointer)
    count = struct.unpack(f"{order}H", data[start : start + 2])[0] if start + 2 <= len(data) else 0
    values: dict[int, bytes] = {}
    for entry in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, length = struct.unpack(f"{order}HHI", data[entry : entry + 8])
        value = data[entry + 8 : entry + 12]
        if kind in (1, 2, 7):
            at = entry + 8 if length <= 4 else struct.unpack(f"{order}I", value)[0]
            values.setdefault(tag, data[at : at + length])
        elif kind == 4:
            values.setdefault(tag, value)
    return values


def _user_comment(data: bytes) -> str:
    code, text = data[:8], data[8:]
    if code != b"UNICODE\0":
        return _text(text).strip("\0")
    # The standard leaves the byte order open: piexif writes big-endian whatever the file's order is. Prompts
    # hold some ASCII, whose zero bytes tell.
    big = text[0::2].count(0) >= text[1::2].count(0)
    if text[:2] in (b"\xfe\xff", b"\xff\xfe"):
        big, text = text[:2] == b"\xfe\xff", text[2:]
    return text.decode("utf-16-be" if big else "utf-16-le", errors="replace").strip("\0")
