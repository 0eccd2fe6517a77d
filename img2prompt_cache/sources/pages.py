"""Pages of a parquet file: what its columns unpack to, read from the headers of pages; of their data, only
small dictionaries are unpacked.

The sizes in the footer are only claims, so they are not used. Headers are Thrift's compact protocol; see
``parquet.thrift`` of the format's specification and "Thrift compact protocol encoding".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa

from img2prompt_cache.errors import UsageError, check

HEADER = 1 << 20
"""Most bytes of a page's header; it may hold the smallest and largest value of the page."""

FOOTER = 16 << 20
"""Most bytes of a footer."""

DAMAGED = "the header of a page or the footer is damaged"
DELTA_BYTE_ARRAY = 7
_DICTIONARIES = (2, 8)
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_DEPTH = 12
_NAME = 1 << 12
_SMALL = 4 << 20
_BYTE_ARRAY = 6
_CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd"}

Value: TypeAlias = "int | bytes | list[Value] | dict[int, Value]"
Fields: TypeAlias = "dict[int, Value]"


@dataclass(slots=True)
class Unpacked:
    """What some chunks of columns unpack to.

    Attributes
    ----------
    size : int
        Bytes of their pages, decompressed.
    values : int
        Number of values, those in lists and nulls included.
    largest : int
        Bytes of the largest page, decompressed.
    expanded : int
        An upper bound of the bytes of values that are stored as references to a dictionary.
    shares_prefixes : bool
        Whether values are stored as a difference to the one before, so that a short one can stand for many
        bytes.
    """

    size: int = 0
    values: int = 0
    largest: int = 0
    expanded: int = 0
    shares_prefixes: bool = False


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Where the pages of a column of a row group lie, as the footer says."""

    kind: int
    codec: int
    values: int
    start: int
    end: int


def unpacked_groups(path: Path, columns: Iterable[str]) -> list[Unpacked]:
    """Read the headers of all pages of some columns, for each row group.

    The footer is parsed here, because pyarrow's own view of a damaged column chunk ends the process.

    Parameters
    ----------
    path : pathlib.Path
    columns : iterable of str
        Names of top-level columns.

    Raises
    ------
    UsageError
        If the footer or a header is damaged.
    """
    names, groups = {name.encode() for name in columns}, []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for chunks in _footer(file, size):
                found = Unpacked()
                for name, chunk in chunks:
                    if name in names:
                        _add_chunk(found, file, chunk)
                groups.append(found)
    except (ValueError, IndexError, OverflowError) as error:
        raise UsageError(f"{path} cannot be read as parquet: {error or DAMAGED}") from error
    return groups


def total(groups: Iterable[Unpacked]) -> Unpacked:
    """Add up what row groups unpack to."""
    found = Unpacked()
    for group in groups:
        found.size += group.size
        found.values += group.values
        found.largest = max(found.largest, group.largest)
        found.expanded += group.expanded
        found.shares_prefixes |= group.shares_prefixes
    return found


def _footer(file: BinaryIO, size: int) -> Iterator[list[tuple[bytes, _Chunk]]]:
    """Give the chunks of every row group with the names of their top-level columns."""
    file.seek(max(0, size - 8))
    length = int.from_bytes(file.read(4), "little")
    check(length + 8 <= size, DAMAGED)
    check(length <= FOOTER, f"its footer has {length} bytes, more than the {FOOTER} allowed")
    file.seek(size - 8 - length)
    fields, _ = _struct(file.read(length), 0)
    for group in _list(fields, 4):
        chunks = []
        for column in _list(group, 1):
            about = column.get(3) if isinstance(column, dict) else None
            path = _list(about, 3)
            check(bool(path) and isinstance(path[0], bytes), DAMAGED)
            start = _number(about, 9)
            dictionary = _number(about, 11, 0)
            start = dictionary if 0 < dictionary < start else start
            end = min(start + _number(about, 7), size)
            chunk = _Chunk(_number(about, 1), _number(about, 4), _number(about, 5), start, end)
            chunks.append((path[0], chunk))
        yield chunks


def _list(fields: object, field: int) -> list[Any]:
    value = fields.get(field) if isinstance(fields, dict) else None
    if not isinstance(value, list):
        raise ValueError(DAMAGED)  # noqa: TRY004 - of the file
    return value


def _add_chunk(found: Unpacked, file: BinaryIO, chunk: _Chunk) -> None:
    start, end = chunk.start, chunk.end
    dictionary = values = referring = 0
    while start < end and values < chunk.values:
        page, length = _header(file, start, end)
        size, packed, kind = (_number(page, field) for field in (2, 3, 1))
        body = start + length
        start = body + packed
        found.size += size
        found.largest = max(found.largest, size)
        if kind == _DICTIONARY_PAGE:
            file.seek(body)
            dictionary = max(dictionary, _longest(file, chunk, size, packed))
        elif kind in (_DATA_PAGE, _DATA_PAGE_V2):
            header = page.get(5 if kind == _DATA_PAGE else 8)
            count = _number(header, 1)
            encoding = _number(header, 2 if kind == _DATA_PAGE else 4)
            values += count
            referring += count if encoding in _DICTIONARIES else 0
            found.shares_prefixes |= encoding == DELTA_BYTE_ARRAY
    found.values += values
    found.expanded += referring * dictionary


def _longest(file: BinaryIO, chunk: _Chunk, size: int, packed: int) -> int:
    """Give the bytes of the longest value of the dictionary that begins here, or more."""
    if chunk.kind < _BYTE_ARRAY:
        return 12
    if chunk.kind > _BYTE_ARRAY or chunk.codec not in _CODECS or max(size, packed) > _SMALL:
        return size
    data = file.read(packed)
    if chunk.codec:
        try:
            data = pa.decompress(data, size, _CODECS[chunk.codec], asbytes=True)
        except (pa.ArrowException, ValueError, OSError):
            return size
    longest = at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        longest = max(longest, length)
        at += 4 + length
    return min(longest, size)


def _number(fields: object, field: int, default: int = -1) -> int:
    value = fields.get(field, default) if isinstance(fields, dict) else None
    if not isinstance(value, int) or value < 0:
        raise ValueError(DAMAGED)
    return value


def _header(file: BinaryIO, start: int, end: int) -> tuple[Fields, int]:
    """Read the header of the page at `start`: its fields by number, and its length."""
    length = 1 << 10
    while True:
        file.seek(start)
        data = file.read(min(length, end - start))
        try:
            return _struct(data, 0)
        except IndexError:  # it is longer than what was read
            if length >= min(HEADER, end - start):
                raise ValueError(DAMAGED) from None
            length *= 32


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[Fields, int]:
    check(depth < _DEPTH, DAMAGED)
    fields: Fields = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _varint(data, at, signed=True)
        value, at = _value(data, at, head & 15, depth)
        if value is not None:
            fields[number] = value
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Value | None, int]:
    if kind in (1, 2):  # a boolean is its type
        return None, at
    if kind == 3:
        return None, at + 1
    if kind in (4, 5, 6):
        return _varint(data, at, signed=True)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        if at + length > len(data):
            raise IndexError
        return data[at : at + length] if length <= _NAME else None, at + length
    if kind in (9, 10):
        return _elements(data, at, depth + 1)
    check(kind == 12, DAMAGED)  # there are no maps
    return _struct(data, at, depth + 1)


def _elements(data: bytes, at: int, depth: int) -> tuple[list[Value], int]:
    check(depth < _DEPTH, DAMAGED)
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _varint(data, at)
    check(count <= len(data), DAMAGED)
    values: list[Value] = []
    for _ in range(count):
        value, at = (None, at + 1) if kind in (1, 2) else _value(data, at, kind, depth)
        values.append(0 if value is None else value)
    return values, at


def _varint(data: bytes, at: int, *, signed: bool = False) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        check(shift < 64, DAMAGED)
    return (value >> 1) ^ -(value & 1) if signed else value, at
