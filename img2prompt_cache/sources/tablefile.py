"""Reading a table of prompts: CSV and its kin, JSON or parquet, every value as text.

Nothing is guessed from the values: ``00123`` stays an id and ``NA`` a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.captions import JSON_START, NESTED, parse_json, prompt_of_value
from img2prompt_cache.sources.columns import (
    ID_COLUMNS,
    PROMPT_COLUMNS,
    is_binary,
    pick,
    plain,
    short_columns,
)
from img2prompt_cache.sources.csvfile import SEPARATORS, csv_names, not_utf8, read_csv, tell_dialect
from img2prompt_cache.sources.jsonfile import read_document, read_lines, table_of

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
DOCUMENT_SUFFIX = ".json"
"""A document may be a table, but also anything else."""
_KNOWN = (ID_COLUMNS, PROMPT_COLUMNS)
_BATCH = 1024
_RECORDS = frozenset(NESTED) - {"image"}


@dataclass(frozen=True, slots=True)
class Prompts:
    """A table of prompts, n rows.

    Attributes
    ----------
    ids, prompts : pyarrow.ChunkedArray
        Strings, n each. An id is as written; a blank prompt is null.
    extras : dict of str to pyarrow.ChunkedArray
        The short further columns, as text.
    notes : tuple of str
        Which columns were left out.
    """

    ids: pa.ChunkedArray
    prompts: pa.ChunkedArray
    extras: dict[str, pa.ChunkedArray]
    notes: tuple[str, ...]


def read_prompts(path: Path, id_column: str | None, prompt_column: str | None) -> Prompts:
    """Read a table and pick its columns.

    Parameters
    ----------
    path : pathlib.Path
    id_column, prompt_column : str or None
        Their names; if None, the first of `ID_COLUMNS` and `PROMPT_COLUMNS` that is there.

    Raises
    ------
    UsageError
        If the file cannot be read or a column is not there.
    """
    table = read_table(path, prompt_column)
    ids = pick(table.column_names, id_column, ID_COLUMNS, "id_column", path)
    prompt = pick(table.column_names, prompt_column, PROMPT_COLUMNS, "prompt_column", path)
    extras, notes = short_columns(table, {ids, prompt})
    return Prompts(table[ids].fill_null(""), prompts_of(table[prompt]), extras, notes)


def column_names(path: Path) -> list[str]:
    """Name the columns of a table, reading no more than its head.

    Raises
    ------
    UsageError
        If the file cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return [str(name) for name in pq.read_schema(path).names]
        if suffix == ".jsonl":
            return list(next(read_lines(path), {}))
        if suffix == DOCUMENT_SUFFIX:
            return [str(name) for name in table_of(read_document(path)[:1], path).column_names]
        return csv_names(path, tell_dialect(path, _KNOWN))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, prompt_column: str | None = None) -> pa.Table:
    """Read a table whose every column is a string column; nested and binary columns are left out.

    Of a column of prompts, lists and records are read, too: see `captions.prompt_of_value`.

    Parameters
    ----------
    path : pathlib.Path
    prompt_column : str, optional
        The column of prompts, where it has another name than those of `PROMPT_COLUMNS`.

    Raises
    ------
    UsageError
        If the file is missing, damaged, ragged or not UTF-8.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = _read_parquet(path, prompt_column)
        elif suffix == ".jsonl":
            table = table_of(read_lines(path), path, prompt_column)
        elif suffix == DOCUMENT_SUFFIX:
            table = table_of(read_document(path), path, prompt_column)
        else:
            table = read_csv(path, tell_dialect(path, _KNOWN))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if not table.num_rows:
        raise UsageError(f"{path} has no rows")
    return table


def has_columns(path: Path, known: Sequence[Sequence[str]]) -> bool:
    """Say whether a table can be read and has one column of each list."""
    try:
        names = {plain(name) for name in column_names(path)}
    except UsageError:
        return False
    return all(any(name.lower() in names for name in group) for group in known)


def prompts_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take prompts out of texts that are JSON, and make blank ones null."""
    if pc.any(pc.match_substring_regex(column, JSON_START)).as_py():
        texts = [_text(value) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(texts, pa.string())])
    return blank_to_null(column)


def blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make an empty or white-space prompt null; every other one stays as it was given."""
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), column)


def _read_parquet(path: Path, prompt_column: str | None) -> pa.Table:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        flat = [f.name for f in schema if not pa.types.is_nested(f.type) and not is_binary(f.type)]
        nested = [f.name for f in schema if pa.types.is_nested(f.type)]
        table = file.read(columns=flat)
        columns = [(name, pc.cast(table[at], pa.string())) for at, name in enumerate(table.column_names)]
        names = {*PROMPT_COLUMNS, (prompt_column or "").lower()}
        columns += [(name, _stated(file, name)) for name in nested if plain(name) in names]
        if not any(plain(name) in names for name, _ in columns):
            inside = next((name for name in schema.names if plain(name) in _RECORDS), None)
            columns += [("prompt", _stated(file, inside))] if inside else []
        if not columns and file.metadata.num_rows:
            raise UsageError(f"{path} has no column of text; its columns are {', '.join(schema.names[:20])}")
    return pa.table([column for _, column in columns], names=[name for name, _ in columns])


def _stated(file: pq.ParquetFile, name: str) -> pa.ChunkedArray:
    """Read the prompts that lists, records or JSON state."""
    parts = [
        pa.array(
            [
                _text(parse_json(value) if isinstance(value, str) else value)
                for value in batch.column(0).to_pylist()
            ],
            pa.string(),
        )
        for batch in file.iter_batches(_BATCH, columns=[name])
    ]
    return pa.chunked_array(parts, pa.string())


def _text(value: object) -> str | None:
    found = prompt_of_value(value)
    return found.encode(errors="replace").decode() if found else None


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = str(error).strip().splitlines()[0][:300]
    if isinstance(error, FileNotFoundError):
        return UsageError(f"there is no table {path}")
    if isinstance(error, UnicodeDecodeError) or "UTF8" in reason:
        return not_utf8(path)
    hint = ""
    if "columns, got" in reason:
        separator = SEPARATORS[tell_dialect(path, _KNOWN).separator]
        hint = f"; columns are separated by a {separator}: quote every prompt that holds one or a line break"
    return UsageError(f"{path} cannot be read as a table: {reason}{hint}")
