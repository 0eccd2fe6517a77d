"""Reading a table of prompts: CSV, TSV, JSON lines or parquet, every value as text.

Nothing is guessed from the values: ``00123`` stays an id and ``NA`` a prompt.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import COLUMNS

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
ID_COLUMNS = (
    *("imgId", "image_id", "file_name", "filename", "file", "image_path", "image_name", "image", "path"),
    *("img", "id", "key"),
)
PROMPT_COLUMNS = ("prompt", "text", "caption")
LONGEST_EXTRA = 256
"""A further column is kept if no value has more characters: enough for a group or a model's name."""
RESERVED = frozenset((*COLUMNS, "sha256", "status", "reason"))
"""Names that the rows of a cache need for themselves."""


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
    table = read_table(path)
    ids = pick(table.column_names, id_column, ID_COLUMNS, "id_column", path)
    prompt = pick(table.column_names, prompt_column, PROMPT_COLUMNS, "prompt_column", path)
    extras, notes = short_columns(table, {ids, prompt})
    return Prompts(table[ids].fill_null(""), blank_to_null(table[prompt]), extras, notes)


def column_names(path: Path) -> list[str]:
    """Name the columns of a table, reading no more than its head.

    Raises
    ------
    UsageError
        If the file cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return [str(name) for name in pq.read_schema(path).names]
        if path.suffix.lower() == ".jsonl":
            with path.open(encoding="utf-8-sig") as file:
                line = next((line for line in file if line.strip()), "{}")
            return list(_object(line, path, 1))
        return _csv_names(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path) -> pa.Table:
    """Read a table whose every column is a string column; nested and binary columns are left out.

    Raises
    ------
    UsageError
        If the file is missing, damaged, ragged or not UTF-8.
    """
    readers = {".parquet": _read_parquet, ".jsonl": _read_jsonl}
    try:
        table = readers.get(path.suffix.lower(), _read_csv)(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if not table.num_rows:
        raise UsageError(f"{path} has no rows")
    return table


def pick(
    names: Sequence[str],
    wanted: str | None,
    known: Sequence[str],
    parameter: str,
    path: Path,
    remedy: str = "",
) -> str:
    """Choose a column: the wanted one; or the first of the known names that there is, ignoring case.

    Parameters
    ----------
    names : sequence of str
        The columns of the table.
    wanted : str or None
        The name that the user gave, if any.
    known : sequence of str
        Names to look for otherwise, best first.
    parameter : str
        The parameter that names the column, for the error.
    path : pathlib.Path
        The table, for the error.
    remedy : str
        What names the column, where it is more than that parameter.

    Raises
    ------
    UsageError
        If it is not there, or there twice.
    """
    if wanted is not None:
        chosen = [name for name in names if name == wanted]
    else:
        first = next((k for k in known if any(_plain(n) == k.lower() for n in names)), "")
        chosen = [name for name in names if first and _plain(name) == first.lower()]
    if len(chosen) == 1:
        return chosen[0]
    told = ", ".join(names[:20]) or "none"
    if chosen:
        raise UsageError(
            f"{path} has {len(chosen)} columns {chosen[0]!r}; its columns are {told}", parameter=parameter
        )
    missing = f"column {wanted!r}" if wanted is not None else f"column named {' or '.join(known[:3])}"
    raise UsageError(
        f"{path} has no {missing}; its columns are {told}. Name one with {remedy or f'`{parameter}`'}",
        parameter=parameter,
    )


def has_columns(path: Path, known: Sequence[Sequence[str]]) -> bool:
    """Say whether a table can be read and has one column of each list."""
    try:
        names = {_plain(name) for name in column_names(path)}
    except UsageError:
        return False
    return all(any(name.lower() in names for name in group) for group in known)


def bytes_column(schema: pa.Schema) -> str | None:
    """Name the column that holds images: a struct with `bytes`, else binary; None if there is none."""

    def holds(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(f.name == "bytes" and is_binary(f.type) for f in kind)
        return is_binary(kind)

    names = [str(f.name) for f in schema if holds(f.type)]
    known = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
    return next((n for k in known for n in names if n.lower() == k), names[0] if names else None)


def is_binary(kind: pa.DataType) -> bool:
    """Say whether a type holds bytes of any length."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make an empty or white-space prompt null; every other one stays as it was given."""
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), column)


def short_columns(table: pa.Table, taken: set[str]) -> tuple[dict[str, pa.ChunkedArray], tuple[str, ...]]:
    """Keep the further columns whose values are all short, and say which were left out and why."""
    kept: dict[str, pa.ChunkedArray] = {}
    notes = []
    for name in dict.fromkeys(table.column_names):
        if name in taken:
            continue
        if not name.strip() or name in RESERVED or table.column_names.count(name) > 1:
            notes.append(f"column {name!r} left out: no name of its own")
            continue
        column = table[name].fill_null("")
        longest = pc.max(pc.utf8_length(column)).as_py() or 0
        if longest <= LONGEST_EXTRA:
            kept[name] = column
        else:
            notes.append(
                f"column {name!r} left out: a value of {longest} characters (at most {LONGEST_EXTRA})"
            )
    return kept, tuple(notes)


def _plain(name: str) -> str:
    return name.strip().lower()


def _csv_options(path: Path) -> tuple[pa.csv.ReadOptions, pa.csv.ParseOptions]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # A row must fit in a block; prompts hold line breaks, so blocks cannot be cut at just any of them.
    return (
        pa.csv.ReadOptions(block_size=32 << 20),
        pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    )


def _csv_names(path: Path) -> list[str]:
    with path.open("rb") as start:
        if start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise _not_utf8(path)
    _, parse = _csv_options(path)
    with pa.csv.open_csv(
        path, parse_options=parse, read_options=pa.csv.ReadOptions(block_size=4 << 20)
    ) as file:
        return [str(name) for name in file.schema.names]


def _read_csv(path: Path) -> pa.Table:
    read, parse = _csv_options(path)
    types = dict.fromkeys(_csv_names(path), pa.string())
    convert = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    return pa.csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)


def _read_jsonl(path: Path) -> pa.Table:
    # Not pyarrow.json: it turns text that looks like a date into one.
    columns: dict[str, list[str | None]] = {}
    nested: set[str] = set()
    count = 0
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            for name, value in _object(line, path, number).items():
                if isinstance(value, dict | list):
                    nested.add(name)
                    continue
                column = columns.setdefault(name, [])
                column.extend([None] * (count - len(column)))
                column.append(value if isinstance(value, str | None) else json.dumps(value))
            count += 1
    arrays = {
        name: _strings([*values, *[None] * (count - len(values))], path)
        for name, values in columns.items()
        if name not in nested
    }
    return pa.table(arrays)


def _strings(values: list[str | None], path: Path) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        raise UsageError(f"{path} holds half of a surrogate pair, which is not text") from error


def _object(line: str, path: Path, number: int) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}, line {number}, is not JSON: {str(error)[:120]}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}, line {number}, is not a JSON object")
    return value


def _read_parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        names = [f.name for f in schema if not pa.types.is_nested(f.type) and not is_binary(f.type)]
        table = file.read(columns=names)
    texts = [pc.cast(table[name], pa.string()) for name in table.column_names]
    return pa.table(texts, names=table.column_names)


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = str(error).strip().splitlines()[0][:300]
    if isinstance(error, FileNotFoundError):
        return UsageError(f"there is no table {path}")
    if isinstance(error, UnicodeDecodeError) or "UTF8" in reason:
        return UsageError(
            f"{path} is not UTF-8; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8') and try again"
        )
    hint = "; quote every prompt that holds a comma or a line break" if "columns" in reason else ""
    return UsageError(f"{path} cannot be read as a table: {reason}{hint}")


def _not_utf8(path: Path) -> UsageError:
    return UsageError(f"{path} is not UTF-8; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8') and try again")
