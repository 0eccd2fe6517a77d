"""What a pass has to do: which rows are new, which parts are missing, how much room they take."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.cache.manifest import EXTRA_NAME, Column, Manifest, Part
from img2prompt_cache.cache.parts import read_text
from img2prompt_cache.cache.reader import ROW_COLUMNS
from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.work import Slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_PART_ROWS, MOST_PART_ROWS = 1024, 16384
PARTS = 4096
_TEXT_BYTES_PER_ROW = 320


@dataclass(frozen=True, slots=True)
class Job:
    """One part to work on.

    Attributes
    ----------
    number, start, stop : int
        The part and its rows.
    source : int
        Which of the manifest's sources its images come from.
    columns : tuple of Column
        What it lacks, in the manifest's order.
    """

    number: int
    start: int
    stop: int
    source: int
    columns: tuple[Column, ...]


def find_jobs(folder: Path, manifest: Manifest, fresh: int, source: int) -> list[Job]:
    """List the parts that are missing, in order.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder, to see whether a recorded file is still there.
    manifest : Manifest
        As it stands, with every column that is wanted.
    fresh : int
        How many rows are to be added.
    source : int
        Which source they come from.
    """
    rows = manifest.columns[0]
    edges = [(part.start, part.stop, part.source) for part in rows.parts]
    for start in range(manifest.rows, manifest.rows + fresh, manifest.part_rows):
        edges.append((start, min(start + manifest.part_rows, manifest.rows + fresh), source))
    jobs = []
    for number, (start, stop, origin) in enumerate(edges):
        lacking = tuple(c for c in manifest.columns if not _whole(folder, c, number))
        if lacking:
            jobs.append(Job(number, start, stop, origin, lacking))
    return jobs


def _whole(folder: Path, column: Column, number: int) -> bool:
    if number >= len(column.parts):
        return False
    part = column.parts[number]
    try:
        return (folder / part.file).stat().st_size == part.bytes
    except OSError:
        return False


def bytes_needed(jobs: Iterable[Job]) -> int:
    """Estimate the bytes of the parts to be written, from above for numbers and by experience for text."""
    total = 0
    for job in jobs:
        for column in job.columns:
            each = _TEXT_BYTES_PER_ROW if column.dtype == "text" else 0
            for shape, dtype in column.datasets.values():
                each += int(np.prod(shape)) * np.dtype(dtype).itemsize
            total += (job.stop - job.start) * each + 4096
    return total


def fresh_rows(
    table: pa.Table, cached: pa.Table, origin: NDArray[np.int64], source: int
) -> tuple[pa.Table, int]:
    """Pick the rows of a listing that are not cached yet.

    Parameters
    ----------
    table : pyarrow.Table
        The listing.
    cached : pyarrow.Table
        `imgId` and `prompt` of every cached row.
    origin : numpy.ndarray, int64, shape (cached rows,)
        Which source each came from.
    source : int
        Which source was listed.

    Returns
    -------
    fresh : pyarrow.Table
        In the listing's order.
    changed : int
        Cached rows whose prompt reads otherwise in the listing now.

    Raises
    ------
    UsageError
        If an imgId is cached already from another source.
    """
    if not len(cached):
        return table, 0
    at = pc.index_in(table["imgId"], value_set=cached["imgId"].cast(table.schema.field("imgId").type))
    known = at.drop_null().to_numpy()
    strangers = known[origin[known] != source]
    if len(strangers):
        img_id = cached["imgId"][int(strangers[0])].as_py()
        raise UsageError(
            f"imgId {img_id!r} is cached already from another source; give this source a cache of its own "
            "with --cache"
        )
    prompts = table["prompt"].filter(pc.is_valid(at)).fill_null("")
    changed = pc.sum(pc.not_equal(prompts, cached["prompt"].take(known).cast(prompts.type))).as_py() or 0
    return table.filter(pc.is_null(at)), changed


def digest_of(table: pa.Table) -> str:
    """Tell listings apart: SHA-256 over what a listing holds, 64 hex digits."""
    digest = hashlib.sha256(table.schema.to_string().encode())
    for column in table.columns:
        for chunk in column.chunks:
            digest.update(f"{len(chunk)} {chunk.offset}".encode())
            for buffer in chunk.buffers():
                if buffer is not None:
                    digest.update(buffer)
    return digest.hexdigest()


def choose_part_rows(rows: int) -> int:
    """Choose how many rows a part of a new cache has: more for a big source, so that there are few files.

    1,024 up to four million rows, then doubled until 4,096 parts are enough, up to 16,384.
    """
    size = LEAST_PART_ROWS
    while size < MOST_PART_ROWS and size * PARTS < rows:
        size *= 2
    return size


def extra_columns(table: pa.Table) -> tuple[str, ...]:
    """Name the columns of the user's own table that can be kept under their names."""
    return tuple(
        name
        for name in table.column_names
        if name not in ROW_COLUMNS and EXTRA_NAME.fullmatch(name) is not None
    )


def slice_of(job: Job, fresh: pa.Table, first: int, extra: tuple[str, ...]) -> Slice:
    """Take the rows of a job out of the rows to be added.

    Parameters
    ----------
    job : Job
        With `start` ≥ `first`.
    fresh : pyarrow.Table
        From `fresh_rows`.
    first : int
        The row its first row becomes.
    extra : tuple of str
        Columns of the user's own that the cache keeps; empty text where this source lacks one.
    """
    piece = fresh.slice(job.start - first, job.stop - job.start)
    text = {name: piece[name].fill_null("").to_pylist() for name in ("imgId", "uri", "prompt")}
    for name in extra:
        has = name in piece.column_names
        text[name] = piece[name].fill_null("").to_pylist() if has else [""] * len(piece)
    return Slice(job.number, job.start, text)


def cached_slice(folder: Path, job: Job, part: Part) -> Slice:
    """Read the rows of a job back from their part."""
    return Slice(
        job.number,
        job.start,
        dict(
            read_text(
                folder / part.file, ["imgId", "uri", "prompt", "sha256", "status"], job.stop - job.start
            )
        ),
    )


def first_occurrences(prompts: pa.ChunkedArray) -> NDArray[np.int64]:
    """For every row, the first row with the same prompt: int64, shape (rows,)."""
    chunks = [chunk.indices.to_numpy() for chunk in prompts.dictionary_encode().chunks]
    codes = np.concatenate([np.empty(0, np.int32), *chunks])
    first = np.empty(codes.max(initial=-1) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # the last to be written is the first there is
    same: NDArray[np.int64] = first[codes]
    return same
