"""Columns of a cache as whole arrays, for code of one's own: memory-mapped where they lie in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.cache.identity import recorded_identity
from img2prompt_cache.cache.manifest import KINDS, Column, Kind, Manifest
from img2prompt_cache.cache.mapped import MappedColumn
from img2prompt_cache.cache.parts import Values, locate, map_at
from img2prompt_cache.errors import unknown

if TYPE_CHECKING:
    from typing import Literal

ORDER: tuple[Kind, ...] = ("features", "targets", "trunk", "views", "more_targets")
"""Where several kinds of column have one spec, as towers of a CLIP model do, the first of these counts."""


def find_kind(manifest: Manifest, spec: str, kind: str | None) -> Kind:
    """Find the kind of a numeric column, by its spec.

    Raises
    ------
    UsageError
        If there is no column of this spec, or no such kind.
    """
    for each in ORDER:
        if each == kind or (kind is None and manifest.column(each, spec) is not None):
            return each
    if kind is not None:
        raise unknown("kind of column", kind, ORDER, parameter="kind")
    specs = [column.spec for column in manifest.columns if column.kind in KINDS[1:]]
    raise unknown("column", spec, list(dict.fromkeys(specs)), parameter="spec")


def whole_array(folder: Path, column: Column, mode: Literal["r", "c"]) -> Values:
    """Give all rows of a column: shape (rows, *column.shape), in the dtype in which it is stored.

    A column of one part is memory-mapped; of several, it is read into memory. int8 values are restored by
    their scale, to float32 in memory.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's.
    column : Column
    mode : {"r", "c"}
        Of a memory map: read-only; or copy on write, where changes stay in memory.

    Raises
    ------
    Img2PromptError
        If a part is not what the manifest says.
    """
    coded = column.dtype == "int8"
    if len(column.parts) == 1 and not coded and column.rows:
        part = column.parts[0]
        stored = (folder / part.file, "values", (column.rows, *column.shape), column.dtype)
        return map_at(*stored, locate(*stored, recorded_identity(column, part)), mode)
    return MappedColumn(folder, column, "float32" if coded else column.dtype).load()
