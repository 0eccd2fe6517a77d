"""Hugging Face's *imagefolder*: ``metadata.csv|jsonl|parquet`` with ``file_name`` and a prompt.

The table lies in the folder, or one in each of its sub-folders (one a split, say); `file_name` is relative to
the table. An id is the image's path below the folder, without its suffix.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.scan import folders_in, scan
from img2prompt_cache.sources.table import join
from img2prompt_cache.sources.tablefile import PROMPT_COLUMNS, Prompts, column_names, read_prompts


class ImageFolderSource(FileSource):
    """Images below a folder, prompts in one or more ``metadata`` tables."""

    takes: ClassVar[frozenset[str]] = frozenset({"prompt_column"})

    @classmethod
    def detects(cls, root: Path) -> bool:
        """Say whether there is such a table with the two columns it needs."""
        tables = _tables(root)
        names = set(column_names(tables[0])) if tables else set()
        return "file_name" in names and not names.isdisjoint(PROMPT_COLUMNS)

    def list(self) -> Listing:
        """List the rows of every table, then the images that none names."""
        tables = _tables(self.root)
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
        return join(prompts, scan(self.root, IMAGE_SUFFIXES), "", self.root, tables[0], self.notes)


def _tables(root: Path) -> list[Path]:
    names = [f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    found = [root / name for name in names if (root / name).is_file()]
    if found or not root.is_dir():
        return found[:1]
    folders = folders_in(root)
    for name in names:
        found = [root / folder / name for folder in folders if (root / folder / name).is_file()]
        if found:
            return found
    return []


def _as_table(prompts: Prompts, folder: str) -> pa.Table:
    names = prompts.ids if folder == "." else pc.binary_join_element_wise(folder, prompts.ids, "/")
    return pa.table({"file_name": names, "prompt": prompts.prompts, **prompts.extras})
