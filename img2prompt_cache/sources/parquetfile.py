"""Reading columns of a parquet file from anybody: memory is bounded, whatever a few bytes unpack to.

A dictionary, shared prefixes, runs and compression each let a small file stand for very much data. Values
that refer to a dictionary stay references until their bytes are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.pages import Unpacked, total, unpacked_groups

LEAST = 512 << 20
"""Bytes of text that any table may unpack to, however small its file."""

RATIO = 32
"""How many times the size of its file the text of a larger table may be."""

_SAFE = 64 << 20
_ROWS = 65_536
_VALUE, _OBJECT = 8, 64
"""Bytes that a value needs at least while it is read; and a row in a listing, or a value in a list."""


def read_columns(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Read columns of text or numbers by batches.

    Parameters
    ----------
    path : pathlib.Path
    columns : list of str
        Names of top-level columns; strings inside may be dictionaries in the batches.

    Raises
    ------
    UsageError
        If the values need more than `LEAST` bytes and more than `RATIO` times the size of the file.
    """
    limit = max(LEAST, RATIO * path.stat().st_size)
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
    need = total(unpacked_groups(path, columns))
    in_lists = max(0, need.values - metadata.num_rows * len(columns))
    if need.size + need.values * _VALUE + (metadata.num_rows + in_lists) * _OBJECT > limit:
        raise _too_much(path, limit)
    leaves = strings_of(metadata, columns) if need.expanded > limit else []
    batch = rows_at_once(need, _SAFE)
    decoded = 0
    with pq.ParquetFile(path, read_dictionary=leaves) as file:
        for part in file.iter_batches(batch, columns=columns, use_threads=False):
            decoded += sum(decoded_size(column) for column in part.columns)
            if decoded > limit:
                raise _too_much(path, limit)
            yield part


def rows_at_once(need: Unpacked, limit: int) -> int:
    """Choose how many rows are read at once, so that values that share prefixes stay within `limit` bytes."""
    return max(1, min(_ROWS, limit // max(1, need.largest))) if need.shares_prefixes else _ROWS


def strings_of(metadata: pq.FileMetaData, columns: list[str]) -> list[str]:
    """List the paths of the strings and bytes in some columns, as `read_dictionary` takes them."""
    schema = metadata.schema
    leaves = [schema.column(at) for at in range(len(schema))]
    return [
        leaf.path
        for leaf in leaves
        if leaf.physical_type == "BYTE_ARRAY" and leaf.path.partition(".")[0] in set(columns)
    ]


def decoded_size(array: pa.Array) -> int:
    """Count the bytes of an array's values, of each reference to a dictionary those that it stands for."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(pc.cast(lengths.take(array.indices), pa.int64())).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(decoded_size(child) for child in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return decoded_size(array.flatten())
    if pa.types.is_map(kind):
        return decoded_size(array.keys) + decoded_size(array.items)
    return int(array.nbytes)


def _too_much(path: Path, limit: int) -> UsageError:
    return UsageError(
        f"{path} holds more than {limit:,} bytes of text in {path.stat().st_size:,} bytes of file, as no "
        "table of prompts does. If it is yours, keep only its columns of ids and prompts"
    )
