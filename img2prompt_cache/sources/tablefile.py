"""Reading a table of prompts: CSV and similar files, JSON or parquet, with every value as text.

Types are not guessed from the values: ``00123`` stays an id and ``NA`` a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.captionlist import read_list
from img2prompt_cache.sources.captions import JSON_START, NESTED, parse_json, prompt_of_value
from img2prompt_cache.sources.columns import (
    ID_COLUMNS,
    PROMPT_COLUMNS,
    is_binary,
    pick_column,
    plain,
    short_columns,
)
from img2prompt_cache.sources.csvfile import SEPARATORS, csv_names, detect_dialect, not_utf8, read_csv
from img2prompt_cache.sources.jsonfile import read_document, read_lines, table_of
from img2prompt_cache.sources.parquetfile import read_columns
from img2prompt_cache.tables import counted

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
        The other columns, if they are short, as text.
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
    several: list[int] = []
    table = read_table(path, prompt_column, several)
    ids = pick_column(table.column_names, id_column, ID_COLUMNS, "id_column", path)
    prompt = pick_column(table.column_names, prompt_column, PROMPT_COLUMNS, "prompt_column", path)
    extras, notes = short_columns(table, {ids, prompt})
    return Prompts(
        table[ids].fill_null(""), prompts_of(table[prompt]), extras, (*note_several(several), *notes)
    )


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


def read_table(
    path: Path, prompt_column: str | None = None, several: MutableSequence[int] | None = None
) -> pa.Table:
    """Read a table with every column as strings, without nested and binary columns.

    In columns of prompts, lists and records are read, too: see `captions.prompt_of_value`.

    Parameters
    ----------
    path : pathlib.Path
    prompt_column : str, optional
        The column of prompts, if its name is not in `PROMPT_COLUMNS`.
    several : list of int, optional
        The number of images with several captions is appended, unless they are in a text that is JSON.

    Raises
    ------
    UsageError
        If the file is missing, damaged or not UTF-8, or rows differ in their number of columns.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = _read_parquet(path, prompt_column, several)
        elif suffix == ".jsonl":
            table = table_of(read_lines(path), path, prompt_column, several)
        elif suffix == DOCUMENT_SUFFIX:
            table = table_of(read_document(path), path, prompt_column, several)
        elif suffix == LIST_SUFFIX:
            rows = ({"file_name": name, "prompt": texts} for name, texts in read_list(path).items())
            table = table_of(rows, path, None, several)
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


def note_several(counts: Iterable[int]) -> tuple[str, ...]:
    """Note how many images have several captions; no note if none has."""
    count = sum(counts)
    what = counted(count, "image has", "images have")
    return (f"{what} several captions, of which the first is taken",) if count else ()


def prompts_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Extract prompts from texts that are JSON, and make blank ones null."""
    if pc.any(pc.match_substring_regex(column, JSON_START)).as_py():
        texts = [_text(value) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(texts, pa.string())])
    return blank_to_null(column)


def blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make prompts that are empty or only white space null; others do not change."""
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), column)


def _read_parquet(path: Path, prompt_column: str | None, several: MutableSequence[int] | None) -> pa.Table:
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
    counts = [] if several is None else several
    batches = [_texts(batch, set(flat), stated, counts) for batch in read_columns(path, wanted)]
    if batches:
        return pa.Table.from_batches(batches)
    kept = [*flat, *stated.values()]
    return pa.table([pa.array([], pa.string())] * len(kept), names=kept)


def _texts(
    batch: pa.RecordBatch, flat: set[str], stated: Mapping[str, str], several: MutableSequence[int]
) -> pa.RecordBatch:
    """Give the columns of a batch as text, and count its rows with several captions."""
    named = list(zip(batch.schema.names, batch.columns, strict=True))
    columns = [(name, pc.cast(column, pa.string())) for name, column in named if name in flat]
    for _, column in columns:
        column.validate(full=True)  # that it is UTF-8, which the file only claims
    for name, column in named:
        if name in stated:
            values = [parse_json(value) if isinstance(value, str) else value for value in column.to_pylist()]
            several.append(sum(isinstance(value, list) and len(value) > 1 for value in values))
            columns.append((stated[name], pa.array(map(_text, values), pa.string())))
    return pa.RecordBatch.from_arrays([column for _, column in columns], [name for name, _ in columns])


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
        separator = SEPARATORS[detect_dialect(path, _KNOWN).separator]
        hint = f"; columns are separated by a {separator}: quote every prompt that holds one or a line break"
    return UsageError(f"{path} cannot be read as a table: {reason}{hint}")
