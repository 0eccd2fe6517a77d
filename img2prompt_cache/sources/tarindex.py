"""The positions of files in a tar archive, read from its headers.

Python's `tarfile` has looped or stalled on hostile archives (CVE-2019-20907, CVE-2024-6232, CVE-2025-8194),
and takes several times as long. This reader handles regular files, GNU long names and PAX paths and sizes
(POSIX.1-2017 pax, "ustar Interchange Format"), and skips everything else. It checks the checksum of every
header and only moves forward.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
LONGEST_HEADER = 1 << 20
"""Largest PAX header or long name in bytes; names of files are shorter."""

_DIGITS = re.compile(rb"[0-9]{1,20}")


class TarDamage(Exception):
    """The archive ends early or a header is invalid; the files yielded before are complete."""


class Member(NamedTuple):
    """A regular file: its name as stored, the offset of its bytes, and their number."""

    name: str
    offset: int
    size: int


def members(file: BinaryIO) -> Iterator[Member]:
    """Yield every regular file of an uncompressed archive, in order.

    Parameters
    ----------
    file : binary file
        Seekable. It may be moved while the iterator waits.

    Raises
    ------
    TarDamage
        At the first place where the archive cannot be read.
    """
    end = file.seek(0, os.SEEK_END)
    position = 0
    name: bytes | None = None
    size: int | None = None
    while position < end:
        header = _read(file, position, BLOCK)
        if header.count(0) == BLOCK:
            return
        length = _number(header[124:136])
        if len(header) < BLOCK or length is None or not _sum_is_right(header):
            raise TarDamage(f"no valid header at byte {position}")
        kind = header[156:157]
        special = kind in b"xgLK"
        if not special and size is not None:
            length = size
        start = position + BLOCK
        if start + length > end:
            raise TarDamage(f"cut short in the file at byte {position}")
        position = start + -(-length // BLOCK) * BLOCK
        if special:
            if length > LONGEST_HEADER:
                raise TarDamage(f"a header of {length} bytes at byte {start - BLOCK}")
            data = _read(file, start, length)
            if kind == b"L":
                name = data.rstrip(b"\0")
            elif kind == b"x":
                fields = _pax(data)
                if any(key.startswith(b"GNU.sparse.") for key in fields):
                    raise TarDamage(f"a sparse file at byte {start - BLOCK}, which is not supported")
                name = fields.get(b"path", name)
                size = int(fields[b"size"]) if _DIGITS.fullmatch(fields.get(b"size", b"")) else size
            continue
        if kind == b"S":
            raise TarDamage(f"a sparse file at byte {start - BLOCK}, which is not supported")
        if kind in (b"0", b"\0", b"7"):
            stored = name if name is not None else _ustar_name(header)
            yield Member(stored.decode(errors="surrogateescape"), start, length)
        name = size = None


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _number(field: bytes) -> int | None:
    """Parse octal digits, or base 256 if the first bit is set; None if invalid or negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8) if b"-" not in field else None
    except ValueError:
        return None


def _sum_is_right(header: bytes) -> bool:
    return _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _ustar_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Parse records ``length key=value\\n``, up to the first damaged one."""
    fields: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        digits = data[position : position + 10].partition(b" ")[0]
        length = int(digits) if _DIGITS.fullmatch(digits) else 0
        record = data[position + len(digits) + 1 : position + length]
        if not len(digits) + 1 < length <= len(data) - position or not record.endswith(b"\n"):
            break
        key, _, value = record[:-1].partition(b"=")
        fields[key] = value
        position += length
    return fields
