"""Reading CSV and similar files, as programs and spreadsheets write them, with every value as text.

Columns are separated by commas, tabs, semicolons or vertical bars, which is detected from the header. Quotes
inside quotes are doubled (RFC 4180); if a file is only valid with a backslash before them, it is read so.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv

from img2prompt_cache.errors import UsageError

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
BLOCK = 32 << 20
"""Largest size of a row in bytes."""
_HEAD = 1 << 16
_BOM = "\ufeff"
_EXCEL = re.compile(r"sep=([,;\t|])\r?\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The separator of a file and the position of its header.

    Attributes
    ----------
    separator : str
    skip : int
        Lines before the header.
    """

    separator: str
    skip: int = 0


def detect_dialect(path: Path, known: Sequence[Sequence[str]]) -> Dialect:
    """Detect the separator of a file from its header.

    It is the usual one for the suffix, unless the header then has a single column, or only another separator
    yields a header with a name from each list.

    Parameters
    ----------
    path : pathlib.Path
    known : sequence of sequences of str
        Names of columns to look for: one list for each column that is needed.

    Raises
    ------
    UsageError
        If the file is UTF-16.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise not_utf8(path)
    text = head.decode(errors="replace").removeprefix(_BOM)
    stated = _EXCEL.match(text)
    if stated:
        return Dialect(stated[1], 1)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","

    def rank(separator: str) -> tuple[bool, bool, bool]:
        names = {name.strip().lower() for name in _header(text, separator)}
        fits = all(any(name.lower() in names for name in group) for group in known)
        return fits, len(names) > 1, separator == usual

    return Dialect(max(SEPARATORS, key=rank))


def read_csv(path: Path, dialect: Dialect) -> pa.Table:
    """Read a file with every column as strings.

    Raises
    ------
    pyarrow.ArrowException, OSError
        If it cannot be read.
    """
    escape, source = _escaping(path, dialect)
    parse = _parsing(dialect, escape)
    head = pa.csv.ReadOptions(block_size=4 << 20, skip_rows=dialect.skip)
    with pa.csv.open_csv(source, parse_options=parse, read_options=head) as file:
        types = dict.fromkeys(file.schema.names, pa.string())
    if not isinstance(source, Path):
        source.seek(0)
    convert = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    return pa.csv.read_csv(
        source,
        # A row must fit in a block: prompts contain line breaks, so a block cannot end at any of them.
        read_options=pa.csv.ReadOptions(block_size=BLOCK, skip_rows=dialect.skip),
        parse_options=parse,
        convert_options=convert,
    )


def csv_names(path: Path, dialect: Dialect) -> list[str]:
    """List the names of the columns, reading only the head of a file."""
    with path.open("rb") as file:
        head = file.read(_HEAD).decode(errors="replace").removeprefix(_BOM)
    for _ in range(dialect.skip):
        head = head.partition("\n")[2]
    return _header(head, dialect.separator)


def not_utf8(path: Path) -> UsageError:
    """Make the error for a file in another encoding."""
    return UsageError(f"{path} is not UTF-8; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8') and try again")


def _parsing(dialect: Dialect, escape: bool) -> pa.csv.ParseOptions:
    return pa.csv.ParseOptions(
        delimiter=dialect.separator, newlines_in_values=True, escape_char="\\" if escape else False
    )


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=separator)), [])
    except csv.Error:
        return []


def _escaping(path: Path, dialect: Dialect) -> tuple[bool, Path | BinaryIO]:
    r"""Detect whether quotes are written as ``\"``, and return whether to unescape, and what to read.

    Some writers escape the backslash, too, and others do not: a prompt may contain ``\(``. If a backslash
    precedes any other character, backslashes are literal, and only the quotes are rewritten.
    """
    if not _holds_quotes(path) or _is_regular(path, dialect, escape=False):
        return False, path
    if not _is_regular(path, dialect, escape=True):
        return False, path  # the usual reading then raises the error
    data = path.read_bytes()
    if all(pair[1] in b'"\\\r\n' for pair in re.finditer(rb"\\(.)", data, re.DOTALL)):
        return True, path
    return False, io.BytesIO(data.replace(b'\\"', b'""'))


def _holds_quotes(path: Path) -> bool:
    last = b""
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            if b'\\"' in last + data:
                return True
            last = data[-1:]
    return False


def _is_regular(path: Path, dialect: Dialect, *, escape: bool) -> bool:
    """Check that all rows have the same number of columns, and that nothing follows a closing quote."""
    limit = csv.field_size_limit(BLOCK)
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            if file.read(1) != _BOM:
                file.seek(0)
            for _ in range(dialect.skip):
                file.readline()
            rows = csv.reader(
                file, delimiter=dialect.separator, strict=True, escapechar="\\" if escape else None
            )
            counts = {len(row) for row in rows if row}
    except csv.Error:
        return False
    finally:
        csv.field_size_limit(limit)
    return len(counts) == 1
