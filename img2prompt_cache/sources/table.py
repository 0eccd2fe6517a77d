"""A folder of images and a table of their prompts; in the competition, ``imgId,prompt`` and ``<imgId>.png``.

The table is the file named with `prompts`; otherwise ``prompts.csv|tsv|jsonl|parquet|json`` in the folder, or
beside it if the folder is called ``images``; otherwise the first table in the folder, by name, with an id and
a prompt column; otherwise the only one in its sub-folders. Predictions of this package are none, see
`owntables`. The images are in ``images/`` below the folder, if
it exists, or anywhere in the folder. `matching` finds the image of each id. Rows keep the order of the table;
images that the table does not name follow in code-point order.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.captionlist import LIST_NAMES
from img2prompt_cache.sources.columns import ID_COLUMNS, IMG2DATASET, PROMPT_COLUMNS, bytes_column
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.folder import ORIGINALS
from img2prompt_cache.sources.hidden import note_hidden_prompts
from img2prompt_cache.sources.joining import join_rows
from img2prompt_cache.sources.listing import make_listing
from img2prompt_cache.sources.matching import SUFFIX, match, plain_ids, refuse_rows
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_originals, without_suffix
from img2prompt_cache.sources.owntables import is_own_table
from img2prompt_cache.sources.scan import Scan, Walk, count_note, files_in, folders_in
from img2prompt_cache.sources.tablefile import (
    DOCUMENT_SUFFIX,
    LIST_SUFFIX,
    TABLE_SUFFIXES,
    Prompts,
    column_names,
    has_columns,
    read_prompts,
)

ANNOTATIONS = ("annotations", "annotation")
"""Folders in which COCO's JSON files are."""
DOCUMENTS = 16
"""Largest number of JSON files in a folder that are opened to find a table."""


class UnmatchedTableError(UsageError):
    """No row of a table names an image, though there are images.

    Parameters
    ----------
    table, root : pathlib.Path
    id, image : str
        The first of each.
    """

    def __init__(self, table: Path, root: Path, id: str, image: str) -> None:
        super().__init__(
            f"no row of {table} names an image of {root}: the first id is {id!r}, the first image {image!r}. "
            "Check `id_column`, or name the folder that holds the images",
            parameter="id_column",
        )


class TableSource(FileSource):
    """Images in a folder, prompts in a table."""

    takes: ClassVar[frozenset[str]] = frozenset({"prompts", "id_column", "prompt_column"})

    @classmethod
    def recognise(cls, walk: Walk) -> str:
        """Look for a table: the root itself, or one in the folder."""
        tables = find_tables(walk.root)
        return f"{tables[0].name} is a table of prompts" if tables else ""

    def list(self) -> Listing:
        """List the rows of the table, then the images that it does not name.

        Of several tables that were not named, it is the first with a row that names an image.
        """
        tables = [self.options.prompts] if self.options.prompts else find_tables(self.root)
        if not tables:
            raise UsageError(
                f"{self.root} holds no table with an id and a prompt column; name one with `prompts`, and "
                "its columns with `id_column` and `prompt_column`",
                parameter="prompts",
            )
        walk = self.take_walk() if self.root.is_dir() else Walk(self.folder)
        unmatched = []
        for table in tables[:DOCUMENTS]:
            others = [path.name for path in tables if path != table]
            notes = (
                *self.notes,
                *count_note(
                    others, f"other table skipped for {table.name}", f"other tables skipped for {table.name}"
                ),
            )
            try:
                listing = self._join(table, walk, notes)
            except UnmatchedTableError as error:
                unmatched.append(error)
            except UsageError:
                if not unmatched:
                    raise
            else:
                return with_hidden_prompts(self, listing, walk, table)
        raise unmatched[0]

    def _join(self, table: Path, walk: Walk, notes: tuple[str, ...]) -> Listing:
        prompts = read_prompts(table, self.options.id_column, self.options.prompt_column)
        below = self.folder / "images"
        if below.is_dir() and not below.is_symlink():
            found = walk.scan(IMAGE_SUFFIXES, "images/")
            listing = join_images(prompts, found, "images/", self.root, table, notes)
            if listing is not None:
                return listing
        found = walk.scan(IMAGE_SUFFIXES)
        listing = join_images(prompts, found, "", self.root, table, notes)
        if listing is None:
            raise UnmatchedTableError(table, self.root, prompts.ids[0].as_py(), found.files[0])
        return listing


def find_tables(root: Path) -> list[Path]:
    """Find every table that could belong to a folder, the preferred one first.

    Parameters
    ----------
    root : pathlib.Path
        A folder, or a table itself.
    """
    if root.is_file():
        return [root] if _is_table(root) else []
    places = [root, root.parent] if root.name == "images" else [root]
    suffixes = (*TABLE_SUFFIXES, DOCUMENT_SUFFIX)
    named = [place / f"prompts{suffix}" for place in places for suffix in suffixes]
    known = [path for path in named if path.is_file() and _is_table(path)]
    others = [path for path in _fitting(root) if path not in known]
    if known or others:
        return known + others
    below = (path for folder in folders_in(root) for path in _fitting(root / folder, documents=0))
    inner = list(islice(below, 2))
    return inner if len(inner) == 1 else []


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


def join_images(
    prompts: Prompts, found: Scan, prefix: str, root: Path, path: Path, notes: tuple[str, ...] = ()
) -> Listing | None:
    """Match the rows of a table with the images of a folder.

    Parameters
    ----------
    prompts : Prompts
        n rows.
    found : Scan
        The images of a folder.
    prefix : str
        Path from the root to that folder, empty or ending in ``/``; ids may start with it.
    root, path : pathlib.Path
        The root and the table, for messages.
    notes : tuple of str

    Returns
    -------
    Listing or None
        None if there are images, but no row matches one.

    Raises
    ------
    UsageError
        If an id is empty, contains ``..``, or leads through a link to a folder; if two images differ only in
        their suffix; or if a row matches two images.
    """
    images, originals = without_originals(found.files)
    files = pa.array(images, pa.string())
    ids, prompts = join_rows(plain_ids(prompts.ids, files, path, prefix), prompts)
    for link in (link for link in found.links if link.endswith("/")):
        what = f"leads through {link}, a link to a folder, which is not followed"
        refuse_rows(pc.starts_with(ids, link), prompts.ids, path, what)
    stems = pc.replace_substring_regex(files, SUFFIX, "")
    index, how = match(ids, stems, path)
    matched = pc.is_valid(index)
    if len(files) and not pc.any(matched).as_py():
        return None
    prompt_lost = pc.sum(pc.and_(pc.invert(matched), pc.is_valid(prompts.prompts))).as_py() or 0
    rows = index.filter(matched)
    unnamed = np.ones(len(files), bool)
    unnamed[rows.to_numpy()] = False
    left = pa.array(unnamed)

    def stack(first: pa.ChunkedArray, value: str | None) -> pa.ChunkedArray:
        return pa.chunked_array(
            [*first.filter(matched).chunks, pa.array([value] * int(unnamed.sum()), pa.string())]
        )

    uris = pa.chunked_array([files.take(rows), files.filter(left)], pa.string())
    return make_listing(
        pa.chunked_array([stems.take(rows), stems.filter(left)], pa.string()),
        pc.binary_join_element_wise(prefix, uris, "") if prefix else uris,
        stack(prompts.prompts, None),
        root,
        extras={name: stack(column, "") for name, column in prompts.extras.items()},
        without_image=prompt_lost,
        notes=(
            *notes,
            *((how,) if how else ()),
            *prompts.notes,
            *count_note(originals, *ORIGINALS),
            *found.notes(),
        ),
    )


def with_hidden_prompts(source: FileSource, listing: Listing, walk: Walk, table: Path) -> Listing:
    """Note the prompts beside and inside images that a table hides, if nobody asked for the table."""
    if not source.detected or source.options.prompts is not None or not source.root.is_dir():
        return listing
    notes = (*listing.summary.notes, *note_hidden_prompts(listing, walk, table))
    return replace(listing, summary=replace(listing.summary, notes=notes))


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
