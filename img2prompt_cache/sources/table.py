"""A folder of images and a table of their prompts; in the competition, ``imgId,prompt`` and ``<imgId>.png``.

The table is the file named with `prompts`; else ``prompts.csv|tsv|jsonl|parquet`` in the folder, or
beside it if the folder is called ``images``; else the first table in the folder, by name, that has an id and
a prompt column. The images lie in ``images/`` below the folder if there is one, else in the folder itself. An
id is the name of an image there, with or without its suffix. Rows keep the order of the table; images that
the table does not name follow in code-point order.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.files import FileSource
from img2prompt_cache.sources.listing import first_duplicate, make_listing
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.reading import UNSAFE_PATH
from img2prompt_cache.sources.scan import Scan, counted, files_in, scan
from img2prompt_cache.sources.tablefile import (
    ID_COLUMNS,
    PROMPT_COLUMNS,
    TABLE_SUFFIXES,
    Prompts,
    bytes_column,
    has_columns,
    read_prompts,
)

_SUFFIX = r"(?i)(" + "|".join(suffix.replace(".", r"\.") for suffix in IMAGE_SUFFIXES) + ")$"


class TableSource(FileSource):
    """Images in a folder, prompts in a table."""

    takes: ClassVar[frozenset[str]] = frozenset({"prompts", "id_column", "prompt_column"})

    @classmethod
    def detects(cls, root: Path) -> bool:
        """Say whether `root` is a table, or a folder where one is found."""
        return bool(find_tables(root))

    def list(self) -> Listing:
        """List the rows of the table, then the images that it does not name."""
        tables = [self.options.prompts] if self.options.prompts else find_tables(self.root)
        if not tables:
            raise UsageError(
                f"{self.root} holds no table with an id and a prompt column; name one with `prompts`, and "
                "its columns with `id_column` and `prompt_column`",
                parameter="prompts",
            )
        prompts = read_prompts(tables[0], self.options.id_column, self.options.prompt_column)
        others = [path.name for path in tables[1:]]
        notes = (*self.notes, *counted(others, f"other tables passed over for {tables[0].name}"))
        below = self.folder / "images"
        prefix = "images/" if below.is_dir() and not below.is_symlink() else ""
        found = scan(self.folder / prefix, IMAGE_SUFFIXES)
        return join(prompts, found, prefix, self.root, tables[0], notes)


def find_tables(root: Path) -> list[Path]:
    """Find every table that could go with a folder, the one to take first.

    Parameters
    ----------
    root : pathlib.Path
        A folder, or a table itself.
    """
    if root.is_file():
        return [root] if _is_table(root) else []
    places = [root, root.parent] if root.name == "images" else [root]
    named = [place / f"prompts{suffix}" for place in places for suffix in TABLE_SUFFIXES]
    known = [path for path in named if path.is_file() and _is_table(path)]
    others = [root / name for name in files_in(root, TABLE_SUFFIXES)]
    columns = (ID_COLUMNS, PROMPT_COLUMNS)
    return known + [
        path for path in others if path not in known and _is_table(path) and has_columns(path, columns)
    ]


def join(
    prompts: Prompts, found: Scan, prefix: str, root: Path, path: Path, notes: tuple[str, ...] = ()
) -> Listing:
    """Match the rows of a table with the images of a folder.

    Parameters
    ----------
    prompts : Prompts
        n rows.
    found : Scan
        The images of a folder.
    prefix : str
        The way from the root to that folder, empty or ending in ``/``; ids may start with it.
    root, path : pathlib.Path
        The root and the table, for messages.
    notes : tuple of str

    Raises
    ------
    UsageError
        For an id that is empty, there twice, absolute, climbing or leading through a link to a folder; for
        two images that differ in their suffix alone; if no prompt has an image.
    """
    ids = pc.replace_substring_regex(pc.utf8_trim_whitespace(prompts.ids), r"^(\./)+", "")
    if prefix:
        ids = pc.replace_substring_regex(ids, f"^{prefix}", "")
    _refuse(pc.equal(ids, ""), prompts.ids, path, "has no id")
    _refuse(pc.match_substring_regex(ids, UNSAFE_PATH), prompts.ids, path, "names a file outside the source")
    for link in (link for link in found.links if link.endswith("/")):
        what = f"leads through {link}, a link to a folder, which is not followed"
        _refuse(pc.starts_with(ids, link), prompts.ids, path, what)

    files = pa.array(found.files, pa.string())
    stems = pc.replace_substring_regex(files, _SUFFIX, "")
    img_ids = pc.replace_substring_regex(ids, _SUFFIX, "")
    twice = first_duplicate(img_ids)
    if twice is not None:
        raise UsageError(f"{path} has the imgId {twice!r} twice; keep one row for each image")

    index = pc.index_in(img_ids, value_set=stems)
    matched = pc.is_valid(index)
    if files and not pc.any(matched).as_py():
        raise UsageError(
            f"no row of {path} names an image of {root}: the first id is {prompts.ids[0].as_py()!r}, the "
            f"first image {found.files[0]!r}. Check `id_column`",
            parameter="id_column",
        )
    prompt_lost = pc.sum(pc.and_(pc.invert(matched), pc.is_valid(prompts.prompts))).as_py() or 0
    rows = index.filter(matched)
    unnamed = np.ones(len(files), bool)
    unnamed[rows.to_numpy()] = False
    left = pa.array(unnamed)
    more = stems.filter(left)

    def stack(first: pa.ChunkedArray, value: str | None) -> pa.ChunkedArray:
        return pa.chunked_array([*first.filter(matched).chunks, pa.array([value] * len(more), pa.string())])

    uris = pa.chunked_array([*files.take(rows).chunks, files.filter(left)], pa.string())
    return make_listing(
        pa.chunked_array([*img_ids.filter(matched).chunks, more], pa.string()),
        pc.binary_join_element_wise(prefix, uris, "") if prefix else uris,
        stack(prompts.prompts, None),
        root,
        extras={name: stack(column, "") for name, column in prompts.extras.items()},
        without_image=prompt_lost,
        notes=(*notes, *prompts.notes, *found.notes()),
    )


def _refuse(bad: pa.ChunkedArray, ids: pa.ChunkedArray, path: Path, what: str) -> None:
    if pc.any(bad).as_py():
        row = pc.index(bad, True).as_py()
        raise UsageError(
            f"{path}, row {row + 1}: the id {ids[row].as_py()!r} {what}; correct or remove the row"
        )


def _is_table(path: Path) -> bool:
    """Tell a table of prompts from a parquet file that holds the images themselves."""
    if path.suffix.lower() != ".parquet":
        return path.suffix.lower() in TABLE_SUFFIXES
    try:
        return bytes_column(pq.read_schema(path)) is None
    except (pa.ArrowException, OSError):
        return path.stem == "prompts"
