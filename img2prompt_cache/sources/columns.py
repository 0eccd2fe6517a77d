"""Columns of a table: finding ids, prompts and images by the names and types of columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import COLUMNS
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.several import MORE_PROMPTS

ID_COLUMNS = (
    *("imgId", "image_id", "file_name", "filename", "file", "image_path", "image_name", "image", "path"),
    *("img", "id", "key", "img_path", "file_path", "filepath", "image_file", "img_name", "__key__"),
)
PROMPT_COLUMNS = ("prompt", "text", "caption", "positive_prompt", "txt", "captions", "prompts")
IMG2DATASET = frozenset({"key", "status", "error_message"})
"""Columns of the table that img2dataset writes for each shard; it also lists images not downloaded."""
LONGEST_EXTRA = 256
"""Most characters of a value in other columns that are kept: enough for a group or a model's name."""
RESERVED = frozenset((*COLUMNS, MORE_PROMPTS, "sha256", "status", "reason"))
"""Names of columns that the cache itself uses."""


def pick_column(
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
        What the user can do, if it is more than giving that parameter.

    Raises
    ------
    UsageError
        If there is no such column, or there are two.
    """
    if wanted is not None:
        chosen = [name for name in names if name == wanted]
    else:
        first = next((k for k in known if any(plain(n) == k.lower() for n in names)), "")
        chosen = [name for name in names if first and plain(name) == first.lower()]
    if len(chosen) == 1:
        return chosen[0]
    told = ", ".join(names[:20]) or "none"
    if chosen:
        raise UsageError(
            f"{path} has {len(chosen)} columns {chosen[0]!r}; its columns are {told}", parameter=parameter
        )
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        raise UsageError(
            f"{path} begins with a row of values ({told}); its first row must name the columns: imgId,prompt"
        )
    missing = f"column {wanted!r}" if wanted is not None else f"column named {' or '.join(known[:3])}"
    raise UsageError(
        f"{path} has no {missing}; its columns are {told}. Name one with {remedy or f'`{parameter}`'}",
        parameter=parameter,
    )


def bytes_column(schema: pa.Schema) -> str | None:
    """Find the column with images: a struct with `bytes`, or binary; None if there is none."""

    def holds(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(f.name == "bytes" and is_binary(f.type) for f in kind)
        return is_binary(kind)

    names = [str(f.name) for f in schema if holds(f.type)]
    known = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
    return next((n for k in known for n in names if n.lower() == k), names[0] if names else None)


def is_binary(kind: pa.DataType) -> bool:
    """Check whether a type is binary of any length."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def short_columns(table: pa.Table, taken: set[str]) -> tuple[dict[str, pa.ChunkedArray], tuple[str, ...]]:
    """Select the other columns whose values are all short, and note which were left out and why."""
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


def plain(name: str) -> str:
    """Normalise the name of a column: lower case, without white space around it."""
    return name.strip().lower()
