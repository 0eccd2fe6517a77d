"""Small parts joined into larger ones, so that any HDF5 reader can open all parts of a column at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from img2prompt_cache.cache.damage import damage_of
from img2prompt_cache.cache.manifest import (
    MANY_PARTS,
    MOST_PART_ROWS,
    PART_SCHEMA,
    Column,
    Manifest,
    Part,
    part_file,
    revision_of,
)
from img2prompt_cache.cache.manifest_file import save_manifest
from img2prompt_cache.cache.rewriting import join_parts
from img2prompt_cache.files import Replacement, sync_folder
from img2prompt_cache.progress import Callback, ignore, task, warn

_ENOUGH = 4
"""Joined parts are so large that a quarter of `MANY_PARTS` could hold all rows, so that it is done rarely."""


def join_small_parts(folder: Path, manifest: Manifest, tell: Callback = ignore) -> Manifest:
    """Join parts of a cache that has more than `MANY_PARTS` in a column, after many small passes.

    Neighbours of one source are joined. Values stay as they are, bit for bit, and a part keeps where it was
    joined, so that it can be computed again. New files are written first, then the manifest, then the old
    files are removed. Nothing is done where a part is damaged or the disk has too little room.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder, locked by `writing`.
    manifest : Manifest
        As it is now.
    tell : callable
        Takes a note, and the task ``"merge parts"``, in new parts.

    Returns
    -------
    Manifest
        As saved.
    """
    rows = manifest.columns[0]
    if len(rows.parts) <= MANY_PARTS or any(column.rows < manifest.rows for column in manifest.columns):
        return manifest
    groups = _groups(rows.parts, _least_rows(manifest))
    if len(groups) == len(rows.parts):
        return manifest
    why = _obstacle(folder, manifest)
    if why:
        warn(tell, f"the {len(rows.parts)} parts of each column were not merged: {why}")
        return manifest
    columns = []
    with task(tell, "merge parts", len(groups) * len(manifest.columns)) as advance:
        for column in manifest.columns:
            texts = list(manifest.row_datasets.values()) if column.kind == "rows" else []
            revision = 1 + max(revision_of(part.file) for part in column.parts)
            parts = []
            for number, group in enumerate(groups):
                members = [column.parts[each] for each in group]
                parts.append(_place(folder, column, texts, members, number, revision))
                advance(1)
            sync_folder(folder / column.folder)
            columns.append(replace(column, parts=tuple(parts)))
    joined = replace(manifest, columns=tuple(columns))
    save_manifest(folder, joined)
    kept = {part.file for column in joined.columns for part in column.parts}
    for column in manifest.columns:
        for part in column.parts:
            if part.file not in kept:
                (folder / part.file).unlink(missing_ok=True)
    return joined


def _least_rows(manifest: Manifest) -> int:
    size = manifest.part_rows
    while size * MANY_PARTS < _ENOUGH * manifest.rows and size < MOST_PART_ROWS:
        size *= 2
    return size


def _groups(parts: Sequence[Part], most: int) -> list[list[int]]:
    """Divide parts into runs of neighbours of one source, of `most` rows together; larger ones stay alone."""
    groups: list[list[int]] = []
    for number, part in enumerate(parts):
        if groups:
            first = parts[groups[-1][0]]
            if first.source == part.source and part.stop - first.start <= most:
                groups[-1].append(number)
                continue
        groups.append([number])
    return groups


def _obstacle(folder: Path, manifest: Manifest) -> str:
    needed, free = sum(column.bytes for column in manifest.columns), shutil.disk_usage(folder).free
    if needed > free:
        return f"that needs {needed / 1e6:,.0f} MB for a while, and the disk has {free / 1e6:,.0f} MB left"
    for column in manifest.columns:
        for part in column.parts:
            why = damage_of(folder, column, part)
            if why:
                return f"{part.file} is damaged, {why}"
    return ""


def _place(
    folder: Path, column: Column, texts: Sequence[str], members: Sequence[Part], number: int, revision: int
) -> Part:
    """Put some parts of a column under one name, which no recorded part has yet."""
    first, last = members[0], members[-1]
    if len(members) == 1 and first.file == part_file(column.folder, number, revision_of(first.file)):
        return first
    file = part_file(column.folder, number, revision)
    new = folder / file
    if len(members) == 1:
        new.unlink(missing_ok=True)  # of a process that was killed before it recorded it
        try:
            os.link(folder / first.file, new)
        except OSError:  # not every file system has links
            with Replacement(new, tidy=False) as copy:
                shutil.copyfile(folder / first.file, copy.temporary)
                copy.commit()
        return replace(first, file=file)
    pieces = [(folder / part.file, part.start, part.stop) for part in members]
    size, sha256 = join_parts(column, texts, pieces, new, schema=PART_SCHEMA)
    inner = [(part.joins if part is first else (part.start, *part.joins)) for part in members]
    joined = replace(first, file=file, stop=last.stop, bytes=size, sha256=sha256, schema=PART_SCHEMA)
    # Whatever a part keeps of its rows, by their numbers, belongs to the joined one, too.
    kept = [field.name for field in fields(Part) if isinstance(getattr(first, field.name), tuple)]
    lists: dict[str, Any] = {
        name: tuple(chain.from_iterable(getattr(part, name) for part in members)) for name in kept
    }
    return replace(joined, **{**lists, "joins": tuple(chain.from_iterable(inner))})
