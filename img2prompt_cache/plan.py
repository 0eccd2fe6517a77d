"""What a pass has to do: which rows are new, which parts are missing, how much room they take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.cache import ROW_COLUMNS
from img2prompt_cache.errors import UsageError
from img2prompt_cache.manifest import EXTRA_NAME, Column, Manifest, Part
from img2prompt_cache.parts import read_text
from img2prompt_cache.reader import Slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
            each = _TEXT_BYTES_PER_ROW
            if column.dtype != "text":
                each = int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize
            total += (job.stop - job.start) * each + 4096
    return total


def fresh_rows(
    table: pa.Table, cached: dict[str, list[str]], origin: list[int], source: int
) -> tuple[pa.Table, int]:
    """Pick the rows of a listing that are not cached yet.

    Parameters
    ----------
    table : pyarrow.Table
        The listing.
    cached : dict
        `imgId` and `prompt` of every cached row.
    origin : list of int
        For every cached row, which source it came from.
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
    ids = pa.array(cached["imgId"], pa.string())
    at = pc.index_in(table["imgId"].combine_chunks(), value_set=ids) if len(ids) else None
    if at is None:
        return table, 0
    known = at.drop_null().to_numpy()
    strangers = known[np.asarray(origin, np.int64)[known] != source]
    if len(strangers):
        raise UsageError(
            f"imgId {cached['imgId'][strangers[0]]!r} is cached already from another source; give this "
            "source a cache of its own with --cache"
        )
    prompts = table["prompt"].filter(pc.is_valid(at)).fill_null("").to_pylist()
    changed = sum(new != cached["prompt"][row] for new, row in zip(prompts, known, strict=True))
    return table.filter(pc.is_null(at)), changed


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
    codes = prompts.combine_chunks().dictionary_encode().indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)
