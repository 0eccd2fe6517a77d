"""Hugging Face's *imagefolder*: ``metadata.csv|jsonl|parquet`` with ``file_name`` and a prompt.

The tables are in the folder or in folders below it, for instance one for each split
(``data/train/metadata.jsonl``); `file_name` is relative to the table. The JSON tables of DiffusionDB,
``part-000001/part-000001.json``, are read likewise. An id is the image's path below the folder, without its
suffix.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.columns import PROMPT_COLUMNS
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.matching import unmatched_ids
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.scan import Walk
from img2prompt_cache.sources.table import join_images, with_hidden_prompts
from img2prompt_cache.sources.tablefile import Prompts, has_columns, read_prompts

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


class ImageFolderSource(FileSource):
    """Images below a folder, prompts in one or more ``metadata`` tables."""

    takes: ClassVar[frozenset[str]] = frozenset({"prompt_column"})

    @classmethod
    def recognise(cls, walk: Walk) -> str:
        """Look for such a table with the two columns."""
        tables = _tables(walk)
        if not tables or not has_columns(tables[0], (("file_name",), PROMPT_COLUMNS)):
            return ""
        return f"{tables[0].relative_to(walk.root).as_posix()} has the columns file_name and a prompt's"

    def list(self) -> Listing:
        """List the rows of every table, then the images that no table names."""
        walk = self.take_walk()
        tables = _tables(walk)
        if not tables:
            raise UsageError(f"{self.root} has no metadata.csv, metadata.jsonl or metadata.parquet")
        read = [read_prompts(path, "file_name", self.options.prompt_column) for path in tables]
        prefixes = [path.parent.relative_to(self.root).as_posix() for path in tables]
        whole = pa.concat_tables(
            (_as_table(prompts, prefix) for prompts, prefix in zip(read, prefixes, strict=True)),
            promote_options="default",
        )
        extras = {name: whole[name].fill_null("") for name in whole.column_names[2:]}
        notes = tuple(dict.fromkeys(note for prompts in read for note in prompts.notes))
        prompts = Prompts(whole["file_name"], whole["prompt"], extras, notes)
        found = walk.scan(IMAGE_SUFFIXES)
        listing = join_images(prompts, found, "", self.root, tables[0], self.notes)
        if listing is None:
            raise unmatched_ids(tables[0], self.root, prompts.ids[0].as_py(), found.files[0])
        return with_hidden_prompts(self, listing, walk, tables[0])


def _tables(walk: Walk) -> list[Path]:
    """Find the first table of each folder, except folders below another folder with a table."""
    root = walk.root
    if not root.is_dir():
        return []
    folders: dict[str, str] = {}
    for name in walk.scan((*NAMES, ".json")).files:
        folder, _, file = name.rpartition("/")
        own = folder.rpartition("/")[2] or root.name
        if file in NAMES or (file == f"{own}.json" and own.startswith("part-")):
            known = folders.get(folder)
            rank = NAMES.index(file) if file in NAMES else len(NAMES)
            if known is None or rank < (NAMES.index(known) if known in NAMES else len(NAMES)):
                folders[folder] = file
    outer = [folder for folder in folders if not any(above in folders for above in _above(folder))]
    return [root / folder / folders[folder] for folder in sorted(outer)]


def _above(folder: str) -> list[str]:
    """List the folders above a folder; the root is the empty string."""
    if not folder:
        return []
    parts = folder.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts))]


def _as_table(prompts: Prompts, folder: str) -> pa.Table:
    names = prompts.ids if folder == "." else pc.binary_join_element_wise(folder, prompts.ids, "/")
    return pa.table({"file_name": names, "prompt": prompts.prompts, **prompts.extras})
