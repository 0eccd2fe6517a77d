"""Pages of a parquet file: what its columns unpack to, read from the headers of pages without unpacking any.

The sizes in the footer are only claims, so they are not used. Headers are Thrift's compact protocol; see
``parquet.thrift`` of the format's specification and "Thrift compact protocol encoding".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError, check

HEADER = 1 << 20
"""Most bytes of a page's header; it may hold the smallest and largest value of the page."""

DELTA_BYTE_ARRAY = 7
_DICTIONARIES = (2, 8)
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_DEPTH = 8

Fields = dict[int, "int | Fields"]


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


def unpacked(
    path: Path, metadata: pq.FileMetaData, columns: Iterable[str], groups: Iterable[int]
) -> Unpacked:
    """Read the headers of all pages of some columns.

    Parameters
    ----------
    path : pathlib.Path
    metadata : pyarrow.parquet.FileMetaData
        Of the file.
    columns : iterable of str
        Names of top-level columns.
    groups : iterable of int
        Row groups.

    Raises
    ------
    UsageError
        If a header is damaged.
    """
    found, names, schema = Unpacked(), set(columns), metadata.schema
    leaves = [at for at in range(len(schema)) if schema.column(at).path.partition(".")[0] in names]
    try:
        with path.open("rb") as file:
            for number in groups:
                group = metadata.row_group(number)
                for at in leaves:
                    _add_chunk(found, file, group.column(at))
    except (ValueError, IndexError, OverflowError) as error:
        raise UsageError(f"{path} cannot be read as parquet: {error}") from error
    return found


def _add_chunk(found: Unpacked, file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> None:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end = min(start + chunk.total_compressed_size, os.fstat(file.fileno()).st_size)
    check(start >= 0, "a column begins before the file does")
    dictionary = values = referring = 0
    while start < end and values < chunk.num_values:
        page, length = _header(file, start, end)
        size, packed, kind = (_number(page, field) for field in (2, 3, 1))
        start += length + packed
        found.size += size
        found.largest = max(found.largest, size)
        if kind == _DICTIONARY_PAGE:
            dictionary = max(dictionary, size)
        elif kind in (_DATA_PAGE, _DATA_PAGE_V2):
            header = page.get(5 if kind == _DATA_PAGE else 8)
            check(isinstance(header, dict), "a page has no header")
            count = _number(header, 1)
            encoding = _number(header, 2 if kind == _DATA_PAGE else 4)
            values += count
            referring += count if encoding in _DICTIONARIES else 0
            found.shares_prefixes |= encoding == DELTA_BYTE_ARRAY
    found.values += values
    found.expanded += referring * dictionary


def _number(fields: object, field: int) -> int:
    value = fields.get(field) if isinstance(fields, dict) else None
    if not isinstance(value, int) or value < 0:
        raise ValueError("the header of a page is damaged")
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
                raise ValueError("the header of a page is damaged") from None
            length *= 32


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[Fields, int]:
    check(depth < _DEPTH, "the header of a page is damaged")
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


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[int | Fields | None, int]:
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
        return None, at + length
    check(kind == 12, "the header of a page is damaged")  # pages have neither lists nor maps
    return _struct(data, at, depth + 1)


def _varint(data: bytes, at: int, *, signed: bool = False) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        check(shift < 64, "the header of a page is damaged")
    return (value >> 1) ^ -(value & 1) if signed else value, at
