"""Finding the tables of prompts that may belong to a folder of images."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from img2prompt_cache.sources.captionlist import LIST_NAMES
from img2prompt_cache.sources.columns import ID_COLUMNS, IMG2DATASET, PROMPT_COLUMNS, bytes_column
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_suffix
from img2prompt_cache.sources.owntables import is_own_table
from img2prompt_cache.sources.scan import Scan, Walk, files_in, folders_in
from img2prompt_cache.sources.tablefile import (
    DOCUMENT_SUFFIX,
    LIST_SUFFIX,
    TABLE_SUFFIXES,
    column_names,
    has_columns,
)

ANNOTATIONS = ("annotations", "annotation")
"""Folders in which COCO's JSON files are."""
NAMED = tuple(f"prompts{suffix}" for suffix in (*TABLE_SUFFIXES, DOCUMENT_SUFFIX))
"""Names of tables that are preferred to others."""
DOCUMENTS = 16
"""Largest number of JSON files in a folder that are opened to find a table."""


@dataclass(frozen=True, slots=True)
class FoundTables:
    """The tables of prompts that may belong to a folder.

    Attributes
    ----------
    whole : list of pathlib.Path
        Tables for all images below the folder, the preferred one first.
    folders : list of str
        If there is none: the folders below it that have tables of their own, relative, in code-point order.
    """

    whole: list[Path]
    folders: list[str]


def find_tables(walk: Walk) -> FoundTables:
    """Find every table that could belong to a folder.

    Parameters
    ----------
    walk : Walk
        Of the folder, or of a table itself. It is walked only if the folder itself has no table.
    """
    root = walk.root
    if root.is_file():
        return FoundTables([root] if _is_table(root) else [], [])
    beside = [root.parent / name for name in NAMED] if root.name == "images" else []
    known = [path for path in (*(root / name for name in NAMED), *beside) if _is_named(path)]
    others = [path for path in _fitting(root) if path not in known]
    if known or others:
        return FoundTables(known + others, [])
    folders = find_folders(walk)
    below = (path for folder in folders_in(root) for path in _fitting(root / folder, documents=0))
    inner = list(islice(below, 2))
    if len(inner) == 1 and len(with_images(folders, walk)) < 2:
        return FoundTables(inner, [])
    return FoundTables([], folders)


def find_folders(walk: Walk) -> list[str]:
    """Find the folders below a folder that have a table of prompts, but not those below such a folder.

    Returns
    -------
    list of str
        Relative to the root, POSIX, in code-point order. Links are not followed.
    """
    names = walk.scan((*TABLE_SUFFIXES, *LIST_NAMES, *NAMED)).files
    found: set[str] = set()
    for folder in sorted({name.rpartition("/")[0] for name in names} - {""}):
        above = accumulate(folder.split("/"), "{}/{}".format)
        if found.isdisjoint(above) and find_own_tables(walk.root / folder):
            found.add(folder)
    return sorted(found)


def with_images(folders: Sequence[str], walk: Walk) -> list[str]:
    """Keep those folders below which there are images."""
    images = walk.scan(IMAGE_SUFFIXES)
    return [folder for folder in folders if any_below(folder, images)]


def any_below(folder: str, found: Scan) -> bool:
    """Whether any of some files, which are in order, is below a folder."""
    at = bisect_left(found.files, f"{folder}/")
    return at < len(found.files) and found.files[at].startswith(f"{folder}/")


def find_own_tables(folder: Path) -> list[Path]:
    """Find the tables directly in a folder that is below a source, the preferred one first."""
    known = [folder / name for name in NAMED if _is_named(folder / name)]
    return known + [path for path in _fitting(folder, documents=0) if path not in known]


def _is_named(path: Path) -> bool:
    return path.is_file() and _is_table(path)


def _fitting(folder: Path, documents: int = DOCUMENTS) -> list[Path]:
    """Find the tables in a folder with an id and a prompt column; open at most `documents` JSON files."""
    shards = {name[:-4] for name in files_in(folder, ".tar")}
    tables = [
        folder / name for name in files_in(folder, TABLE_SUFFIXES) if name.rpartition(".")[0] not in shards
    ]
    needed = (ID_COLUMNS, PROMPT_COLUMNS)
    fitting = [path for path in tables if _is_table(path) and has_columns(path, needed)]
    fitting = [path for path in fitting if not IMG2DATASET.issubset(column_names(path))]
    names = files_in(folder, DOCUMENT_SUFFIX) if documents or folder.name.lower() in ANNOTATIONS else []
    if not documents:
        names = [name for name in names if name.lower().startswith("captions")]
    names += files_in(folder, LIST_NAMES)
    if names:
        images = {without_suffix(name) for name in files_in(folder, IMAGE_SUFFIXES)}
        names = [name for name in names if without_suffix(name.rpartition(".")[0]) not in images]
    documents_fitting = [folder / name for name in names[:DOCUMENTS] if has_columns(folder / name, needed)]
    return fitting + [path for path in documents_fitting if not is_own_table(path)]


def _is_table(path: Path) -> bool:
    """Check whether a file may be a table of prompts: no parquet file with images, none of our own tables."""
    if is_own_table(path):
        return False
    if path.suffix.lower() != ".parquet":
        if path.suffix.lower() == LIST_SUFFIX:
            return has_columns(path, (ID_COLUMNS, PROMPT_COLUMNS))
        return path.suffix.lower() in (*TABLE_SUFFIXES, DOCUMENT_SUFFIX)
    try:
        return bytes_column(pq.read_schema(path)) is None
    except (pa.ArrowException, OSError):
        return path.stem == "prompts"
