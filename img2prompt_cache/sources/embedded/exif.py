"""The texts of an EXIF block: TIFF 6.0 directories, and the encodings that programs use in them."""

from __future__ import annotations

import re
import struct

EXIF_POINTER, USER_COMMENT = 0x8769, 0x9286
TEXT_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x9C9B: "XPTitle",
    0x9C9C: "XPComment",
    USER_COMMENT: "UserComment",
}
"""Tags that are read, both in the first directory and in the EXIF directory."""

_WIDE = ("XPTitle", "XPComment")
_LABELLED = re.compile(rb"(prompt|workflow): ?(?=\{)", re.IGNORECASE)
"""The labels that ComfyUI writes into Make, Model and other tags of a WebP."""


def exif_texts(data: bytes) -> dict[str, str]:
    """Read the texts of an EXIF block.

    Parameters
    ----------
    data : bytes
        Starting with the byte order mark of the TIFF header.

    Returns
    -------
    dict of str to str
        The text of each tag, by its name; ``"prompt"`` and ``"workflow"`` for graphs with these labels by
        ComfyUI. Empty for damaged blocks, and without values outside the block.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return {}
    first = _directory(data, data[4:8], order)
    second = _directory(data, first.get(EXIF_POINTER, b""), order)
    texts = {}
    for values in (second, first):
        for tag, name in TEXT_TAGS.items():
            if tag in values and name not in texts:
                text = (
                    decode_comment(values[tag])
                    if tag == USER_COMMENT
                    else values[tag].decode("utf-16-le", errors="replace")
                    if name in _WIDE
                    else decode(values[tag])
                ).strip("\0")
                if text:
                    texts[name] = text
    # The whole block is searched: some writers change one text, but not the offset of the next.
    for label in _LABELLED.finditer(data):
        text = decode(data[label.end() :].partition(b"\0")[0])
        texts.setdefault(label[1].decode().lower(), text)
    return texts


def decode(data: bytes) -> str:
    """Decode UTF-8 or, if it is invalid, Latin-1, which is hardly ever valid UTF-8 by chance."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def decode_comment(data: bytes) -> str:
    """Decode a user comment: 8 bytes that name the encoding, which many writers omit, then the text.

    See EXIF 2.3, 4.6.5. It does not specify the byte order of UTF-16, and piexif always writes big-endian,
    whatever the byte order of the file is.
    """
    code, text = data[:8], data[8:]
    if code == b"UNICODE\0":
        return _utf16(text)
    if code == b"JIS\0\0\0\0\0":
        for encoding in ("iso2022_jp", "shift_jis", "euc_jp"):
            try:
                return text.decode(encoding)
            except UnicodeDecodeError:
                continue
    if code in (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", bytes(8)):
        data = text
    return _utf16(data) if _looks_wide(data) else decode(data)


def _looks_wide(data: bytes) -> bool:
    """Check whether a text is UTF-16: it starts with a byte order mark, or many of its bytes are zero."""
    if data[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return True
    data = data.rstrip(b"\0")
    return len(data) > 3 and data.count(0) > len(data) // 4


def _utf16(text: bytes) -> str:
    if text[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return text.decode("utf-16", errors="replace")
    zeros = text[0::2].count(0), text[1::2].count(0)
    if not any(zeros):
        try:  # some write UTF-8 after UNICODE; UTF-16 without ASCII characters is hardly ever valid UTF-8
            return text.decode()
        except UnicodeDecodeError:
            pass
    return text.decode("utf-16-be" if zeros[0] >= zeros[1] else "utf-16-le", errors="replace")


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
        if tag in TEXT_TAGS and kind in (1, 2, 7):
            at = entry + 8 if length <= 4 else struct.unpack(f"{order}I", value)[0]
            values.setdefault(tag, data[at : at + length])
        elif tag == EXIF_POINTER and kind == 4:
            values.setdefault(tag, value)
    return values
