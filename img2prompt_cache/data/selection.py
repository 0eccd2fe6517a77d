"""Selections: a table with the imgIds of the rows to use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.tablefile import read_table
from img2prompt_cache.tables import bare_cell

ID, KEEP = "imgId", "keep"


def read_selection(path: Path) -> list[str]:
    """Read the imgIds of a table: those with `keep` = 1 if it has a column `keep`, otherwise all.

    Parameters
    ----------
    path : pathlib.Path
        A table that `dedup` wrote, or any other with a column `imgId`.

    Raises
    ------
    UsageError
        If it cannot be read, lacks the column, names a row twice, names no row, or `keep` is neither 0 nor 1.
    """
    if not path.is_file():
        raise _refusal(path, ": there is no such file")
    table = read_table(path)
    if table.column_names.count(ID) != 1:
        raise _refusal(path, f" needs one column {ID}; it has {', '.join(table.column_names[:20])}")
    ids = table[ID].to_pylist()
    if not all(ids):
        raise _refusal(path, f": row {[bool(name) for name in ids].index(False) + 1} has no {ID}")
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise _refusal(path, f" names {name!r} {times} times")
    if KEEP not in table.column_names:
        return [bare_cell(str(name)) for name in ids]
    keep = table[KEEP].to_pylist()
    if not {*keep} <= {"0", "1"}:
        wrong = next(value for value in keep if value not in ("0", "1"))
        raise _refusal(path, f": {KEEP} must be 1 or 0, not {wrong!r}")
    found = [bare_cell(name) for name, kept in zip(ids, keep, strict=True) if kept == "1"]
    if not found:
        raise _refusal(path, " keeps no row")
    return found


def _refusal(path: Path, why: str) -> UsageError:
    return UsageError(f'`only="{path}"`{why}', parameter="only")
