"""A folder of images and a table of their prompts; in the competition, ``imgId,prompt`` and ``<imgId>.png``.

The table is the file named with `prompts`; otherwise ``prompts.csv|tsv|jsonl|parquet|json`` in the folder, or
beside it if the folder is called ``images``; otherwise the first table in the folder, by name, with an id and
a prompt column; otherwise the only one in its sub-folders, or the own table of each of several folders below
it, see `subfolders`. Predictions of this package are none, see `owntables`. The images are in ``images/``
below the folder, if it exists, or anywhere in the folder. `matching` finds the image of each id. Rows keep
the order of the table; images that the table does not name follow in code-point order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.findtables import DOCUMENTS, find_own_tables, find_tables
from img2prompt_cache.sources.folder import ORIGINALS
from img2prompt_cache.sources.hidden import note_hidden_prompts
from img2prompt_cache.sources.joining import join_rows
from img2prompt_cache.sources.listing import make_listing
from img2prompt_cache.sources.matching import (
    SUFFIX,
    UnmatchedTableError,
    match,
    plain_ids,
    refuse_rows,
    unmatched_ids,
)
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_originals
from img2prompt_cache.sources.remote import RemoteRoot, told_as
from img2prompt_cache.sources.scan import Scan, Walk, count_note
from img2prompt_cache.sources.subfolders import list_folders, note_unread_folders
from img2prompt_cache.sources.tablefile import Prompts, read_prompts


class TableSource(FileSource):
    """Images in a folder, prompts in a table."""

    takes: ClassVar[frozenset[str]] = frozenset({"prompts", "id_column", "prompt_column"})

    @classmethod
    def recognise(cls, walk: Walk) -> str:
        """Look for a table: the root itself, one in the folder, or one in each of several folders below."""
        found = find_tables(walk)
        if found.whole:
            return f"{found.whole[0].name} is a table of prompts"
        return f"{found.folders[0]}/ has a table of prompts" if found.folders else ""

    def list(self) -> Listing:
        """List the rows of the table, then the images that it does not name.

        Of several tables that were not named, it is the first with a row that names an image; but tables of
        several folders are all read, each with the images of its folder.
        """
        walk = self.take_walk() if self.root.is_dir() else Walk(self.folder)
        named = self.options.prompts
        if isinstance(named, RemoteRoot):
            copy = named.locate(named.name)
            with told_as(copy, str(named)):
                return self._list_first([copy], walk)
        if named is not None:
            return self._list_first([named], walk)
        found = find_tables(walk if self.root.is_dir() else Walk(self.root))
        if found.folders:
            listing = list_folders(found.folders, walk, self._list_folder, self.notes)
            return with_hidden_prompts(self, listing, walk, find_own_tables(self.root / found.folders[0])[0])
        if not found.whole:
            raise UsageError(
                f"{self.root} holds no table with an id and a prompt column; name one with `prompts`, and "
                "its columns with `id_column` and `prompt_column`",
                parameter="prompts",
            )
        return self._list_first(found.whole, walk)

    def _list_folder(self, folder: Path) -> Listing:
        """List a folder with its own tables."""
        own = TableSource(folder, self.options)
        return own._list_first(find_own_tables(folder), Walk(folder))

    def _list_first(self, tables: Sequence[Path], walk: Walk) -> Listing:
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
            raise unmatched_ids(table, self.root, prompts.ids[0].as_py(), found.files[0])
        return listing


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
    """Note the prompts in other tables, and beside and inside images, that a table nobody asked for hides."""
    if not source.detected or source.options.prompts is not None or not source.root.is_dir():
        return listing
    hidden = (*note_unread_folders(listing, walk, table), *note_hidden_prompts(listing, walk, table))
    notes = (*listing.summary.notes, *hidden)
    return replace(listing, summary=replace(listing.summary, notes=notes))
