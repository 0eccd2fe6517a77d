"""Matching the rows of a table with the images of a folder.

An id is a path, with or without the suffix of an image. The first rule that matches any row is used for all:

1. the id is the path of the image below the folder;
2. the path of the image ends with the id: ``a`` or ``x/a.png`` for ``train/x/a.png``;
3. the id ends with the path of the image: ``/kaggle/input/set/train/a.png`` for ``train/a.png``. Such a path
   may come from another machine; it is only compared, never opened.

Only whole names of folders and files are compared. Rows with the same id are several prompts of one image. A
table is refused if an id matches two images, or two ids match one image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.names import IMAGE_SUFFIXES

SUFFIX = r"(?i)(" + "|".join(suffix.replace(".", r"\.") for suffix in IMAGE_SUFFIXES) + ")$"
"""Matches the suffix of an image, in the syntax of RE2."""
_NUMBERED = SUFFIX.removesuffix("$") + "#[0-9]{1,4}$"
"""Matches the number of a caption after the name of an image, as Flickr8k's ``a.jpg#0`` has it."""
_CLIMBS = r"(^|/)\.\.(/|$)|\x00"
_TOP = r"^([A-Za-z]:)?/+"


class UnmatchedTableError(UsageError):
    """No row of a table names an image, though there are images."""


def unmatched_ids(table: Path, root: Path, id: str, image: str) -> UnmatchedTableError:
    """Make the error for a table of which no row names an image; `id` and `image` are the first of each."""
    return UnmatchedTableError(
        f"no row of {table} names an image of {root}: the first id is {id!r}, the first image {image!r}. "
        "Check `id_column`, or name the folder that holds the images",
        parameter="id_column",
    )


def plain_ids(written: pa.ChunkedArray, files: pa.Array, path: Path, prefix: str) -> pa.ChunkedArray:
    """Normalise the ids of a table to paths below a folder, without suffix.

    Parameters
    ----------
    written : pyarrow.ChunkedArray
        The ids as they are in the table.
    files : pyarrow.Array
        Paths of the images. Unless one of them contains a backslash, backslashes in ids separate folders.
    path : pathlib.Path
        The table, for messages.
    prefix : str
        Removed from ids that start with it.

    Raises
    ------
    UsageError
        If an id is empty, or leads out of the folder by ``..``.
    """
    ids = pc.utf8_trim_whitespace(written)
    if not (pc.any(pc.match_substring(files, "\\")).as_py() or False):
        ids = pc.replace_substring(ids, "\\", "/")
    ids = pc.replace_substring_regex(ids, r"^(\./)+", "")
    if prefix:
        ids = pc.replace_substring_regex(ids, f"^{prefix}", "")
    refuse_rows(pc.equal(ids, ""), written, path, "has no id")
    refuse_rows(pc.match_substring_regex(ids, _CLIMBS), written, path, "names a file outside the source")
    ids = pc.replace_substring_regex(ids, _TOP, "")
    if not (pc.any(pc.match_substring(files, "#")).as_py() or False):
        ids = pc.replace_substring_regex(ids, _NUMBERED, "")
    return pc.replace_substring_regex(ids, SUFFIX, "")


def refuse_rows(bad: pa.ChunkedArray, written: pa.ChunkedArray, path: Path, what: str) -> None:
    """Raise `UsageError` for the first row that is marked in `bad`, if any is."""
    if pc.any(bad).as_py():
        row = pc.index(bad, True).as_py()
        raise UsageError(
            f"{path}, row {row + 1}: the id {written[row].as_py()!r} {what}; correct or remove the row"
        )


def match(ids: pa.ChunkedArray, stems: pa.Array, path: Path) -> tuple[pa.Array, str]:
    """Find the image of every row.

    Parameters
    ----------
    ids : pyarrow.ChunkedArray
        n ids from `plain_ids`.
    stems : pyarrow.Array
        Paths of the images, without their suffixes.
    path : pathlib.Path
        The table, for messages.

    Returns
    -------
    index : pyarrow.Array, int32
        For each row its index in `stems`; null for a row without an image.
    how : str
        A note about the rule for the user; empty for the first one.

    Raises
    ------
    UsageError
        If the match is ambiguous.
    """
    index = pc.index_in(ids, value_set=stems).combine_chunks()
    if not len(stems) or index.null_count < len(index):
        return index, ""
    names, images = ids.to_pylist(), stems.to_pylist()
    for rule in (_shorter, _longer):
        found: dict[int, int] = {}
        taken: dict[int, int] = {}
        for row, image in rule(names, images):
            if row in found:
                raise UsageError(
                    f"{path}: the id {names[row]!r} may be {images[found[row]]} or {images[image]}; "
                    "write the path of each image into the table, or name the folder that holds the images"
                )
            if image in taken:
                raise UsageError(
                    f"{path}: the ids {names[taken[image]]!r} and {names[row]!r} may both be "
                    f"{images[image]}; keep one, or name the folder that their paths begin in"
                )
            found[row], taken[image] = image, row
        if found:
            row, image = next(iter(found.items()))
            how = f"ids are matched by the ends of their paths: {names[row]!r} is {images[image]!r}"
            return pa.array([found.get(row) for row in range(len(names))], pa.int32()), how
    return index, ""


def _shorter(ids: list[str], images: list[str]) -> Iterator[tuple[int, int]]:
    """Yield (row, image) where the id is the end of the path of an image."""
    rows = {name: row for row, name in enumerate(ids)}
    for image, path in enumerate(images):
        for tail in _tails(path):
            if tail in rows:
                yield rows[tail], image


def _longer(ids: list[str], images: list[str]) -> Iterator[tuple[int, int]]:
    """Yield (row, image) where the id ends with the path of an image, the longest one of several."""
    known = {path: image for image, path in enumerate(images)}
    most = max(path.count("/") for path in images) + 1
    for row, name in enumerate(ids):
        tail = next((tail for tail in _tails(name, most) if tail in known), None)
        if tail is not None:
            yield row, known[tail]


def _tails(path: str, most: int = 32) -> Iterator[str]:
    """Yield the ends of a path, of at most `most` names, the longest first."""
    parts = path.rsplit("/", most)
    for start in range(max(0, len(parts) - most), len(parts)):
        yield "/".join(parts[start:])
