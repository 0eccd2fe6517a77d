"""Reading a table of prompts: CSV and similar files, JSON or parquet, with every value as text.

Types are not guessed from the values: ``00123`` stays an id and ``NA`` a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.captionlist import read_list
from img2prompt_cache.sources.captions import JSON_START, NESTED, parse_json, prompts_of_value
from img2prompt_cache.sources.columns import (
    ID_COLUMNS,
    PROMPT_COLUMNS,
    is_binary,
    pick_column,
    plain,
    short_columns,
)
from img2prompt_cache.sources.csvfile import SEPARATORS, csv_names, detect_dialect, not_utf8, read_csv
from img2prompt_cache.sources.jsonfile import read_document, read_lines, table_of, text_of
from img2prompt_cache.sources.parquetfile import read_columns
from img2prompt_cache.sources.several import MORE_PROMPTS, as_text, pack

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
DOCUMENT_SUFFIX = ".json"
"""Suffix of JSON documents, which may be a table, but also anything else."""
LIST_SUFFIX = ".txt"
"""Suffix of lists of captions; see `captionlist`."""
_KNOWN = (ID_COLUMNS, PROMPT_COLUMNS)
_RECORDS = frozenset(NESTED) - {"image"}


@dataclass(frozen=True, slots=True)
class Prompts:
    """A table of prompts, n rows.

    Attributes
    ----------
    ids, prompts : pyarrow.ChunkedArray
        Strings, n values each. Ids are unchanged; a blank prompt is null.
    extras : dict of str to pyarrow.ChunkedArray
        The other columns, if they are short, as text; and `several.MORE_PROMPTS`, if a row has several.
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
        Their names; if None, the first of `ID_COLUMNS` and `PROMPT_COLUMNS` that the table has.

    Raises
    ------
    UsageError
        If the file cannot be read or a column is missing.
    """
    table = read_table(path, prompt_column)
    ids = pick_column(table.column_names, id_column, ID_COLUMNS, "id_column", path)
    prompt = pick_column(table.column_names, prompt_column, PROMPT_COLUMNS, "prompt_column", path)
    extras, notes = short_columns(table, {ids, prompt})
    first, more = split_prompts(table[prompt])
    if more is not None:
        extras[MORE_PROMPTS] = more
    return Prompts(table[ids].fill_null(""), first, extras, notes)


def column_names(path: Path) -> list[str]:
    """List the names of the columns of a table, reading only its head.

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
        if suffix == LIST_SUFFIX:
            return ["file_name", "prompt"] if read_list(path, 100) else []
        return csv_names(path, detect_dialect(path, _KNOWN))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, prompt_column: str | None = None) -> pa.Table:
    """Read a table with every column as strings, without nested and binary columns.

    In columns of prompts, lists and records are read, too: see `captions.prompts_of_value`. Several prompts
    of a row are one text, a JSON list; `split_prompts` takes them apart.

    Parameters
    ----------
    path : pathlib.Path
    prompt_column : str, optional
        The column of prompts, if its name is not in `PROMPT_COLUMNS`.

    Raises
    ------
    UsageError
        If the file is missing, damaged or not UTF-8, or rows differ in their number of columns.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = _read_parquet(path, prompt_column)
        elif suffix == ".jsonl":
            table = table_of(read_lines(path), path, prompt_column)
        elif suffix == DOCUMENT_SUFFIX:
            table = table_of(read_document(path), path, prompt_column)
        elif suffix == LIST_SUFFIX:
            rows = ({"file_name": name, "prompt": texts} for name, texts in read_list(path).items())
            table = table_of(rows, path)
        else:
            table = read_csv(path, detect_dialect(path, _KNOWN))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if not table.num_rows:
        raise UsageError(f"{path} has no rows")
    return table


def has_columns(path: Path, known: Sequence[Sequence[str]]) -> bool:
    """Check whether a table can be read and has a column from each list of names."""
    try:
        names = {plain(name) for name in column_names(path)}
    except UsageError:
        return False
    return all(any(name.lower() in names for name in group) for group in known)


def split_prompts(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Extract prompts from texts that may be JSON.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Strings, n values.

    Returns
    -------
    first : pyarrow.ChunkedArray
        The first prompt of each row that is not blank; null where there is none.
    more : pyarrow.ChunkedArray or None
        The others, as `several.pack` writes them; None if no row has several.
    """
    if not pc.any(pc.match_substring_regex(column, JSON_START)).as_py():
        return blank_to_null(column), None
    prompts = [[as_text(prompt) for prompt in prompts_of_value(value)] for value in column.to_pylist()]
    first = pa.array([next(iter(each), None) for each in prompts], pa.string())
    more = [pack(each[1:]) for each in prompts] if any(len(each) > 1 for each in prompts) else None
    return (
        blank_to_null(pa.chunked_array([first])),
        None if more is None else pa.chunked_array([pa.array(more, pa.string())]),
    )


def blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make prompts that are empty or only white space null; others do not change."""
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), column)


def _read_parquet(path: Path, prompt_column: str | None) -> pa.Table:
    schema, rows = pq.read_schema(path), pq.read_metadata(path).num_rows
    names = {*PROMPT_COLUMNS, (prompt_column or "").lower()}
    flat = [f.name for f in schema if not pa.types.is_nested(f.type) and not is_binary(f.type)]
    # Columns of prompts that are lists, records or JSON.
    stated = {f.name: f.name for f in schema if pa.types.is_nested(f.type) and plain(f.name) in names}
    if not any(plain(name) in names for name in (*flat, *stated)):
        inside = next((name for name in schema.names if plain(name) in _RECORDS), None)
        stated |= {inside: "prompt"} if inside else {}
    if not flat and not stated and rows:
        raise UsageError(f"{path} has no column of text; its columns are {', '.join(schema.names[:20])}")
    wanted = list(dict.fromkeys([*flat, *stated]))
    batches = [_texts(batch, set(flat), stated) for batch in read_columns(path, wanted)]
    if batches:
        return pa.Table.from_batches(batches)
    kept = [*flat, *stated.values()]
    return pa.table([pa.array([], pa.string())] * len(kept), names=kept)


def _texts(batch: pa.RecordBatch, flat: set[str], stated: Mapping[str, str]) -> pa.RecordBatch:
    """Give the columns of a batch as text."""
    named = list(zip(batch.schema.names, batch.columns, strict=True))
    columns = [(name, pc.cast(column, pa.string())) for name, column in named if name in flat]
    for _, column in columns:
        column.validate(full=True)  # that it is UTF-8, which the file only claims
    for name, column in named:
        if name in stated:
            values = [parse_json(value) if isinstance(value, str) else value for value in column.to_pylist()]
            columns.append((stated[name], pa.array(map(_text, values), pa.string())))
    return pa.RecordBatch.from_arrays([column for _, column in columns], [name for name, _ in columns])


def _text(value: object) -> str | None:
    return text_of([prompt.encode(errors="replace").decode() for prompt in prompts_of_value(value)])


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = str(error).strip().splitlines()[0][:300]
    if isinstance(error, FileNotFoundError):
        return UsageError(f"there is no table {path}")
    if isinstance(error, UnicodeDecodeError) or "UTF8" in reason:
        return not_utf8(path)
    hint = ""
    if "columns, got" in reason:
        separator = SEPARATORS[detect_dialect(path, _KNOWN).separator]
        hint = f"; columns are separated by a {separator}: quote every prompt that holds one or a line break"
    return UsageError(f"{path} cannot be read as a table: {reason}{hint}")
