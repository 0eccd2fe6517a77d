"""What a pass works on: the rows of each part, the jobs that are left, and the sources of the images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.cache.manifest import Column, Manifest
from img2prompt_cache.cache.part_text import read_rows_part
from img2prompt_cache.cache.reader import OK
from img2prompt_cache.extraction.changes import Changes
from img2prompt_cache.sources import reopen_source
from img2prompt_cache.sources.several import MORE_PROMPTS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Source, Summary


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one part.

    Attributes
    ----------
    number : int
        Which part.
    start : int
        Its first row.
    text : dict of str to list of str
        `imgId`, `uri`, `prompt` and the user's own columns; with `sha256` and `status` where the rows are
        cached already. An image without a `sha256` may be any.
    """

    number: int
    start: int
    text: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.text["imgId"])

    @property
    def known(self) -> bool:
        """Whether these rows are cached already and only other columns are to be added."""
        return "sha256" in self.text

    def was_good(self, row: int) -> bool:
        """Whether the image of a row could be used when it was cached."""
        return self.known and self.text["status"][row] == OK


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


@dataclass(frozen=True, slots=True)
class OpenSources:
    """The sources of a cache by their number in the manifest, each opened when it is first asked for.

    Attributes
    ----------
    entries : tuple of dict
        `Manifest.sources`.
    opened : dict of int to Source
        Those that are open.
    """

    entries: tuple[dict[str, str], ...]
    opened: dict[int, Source] = field(default_factory=dict)

    def __getitem__(self, number: int) -> Source:
        if number not in self.opened:
            self.opened[number] = reopen_source(self.entries[number])
        return self.opened[number]


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What everybody who works on a pass must agree on.

    Attributes
    ----------
    folder : pathlib.Path
        The cache.
    manifest : Manifest
        With every column that is wanted, and the parts that were there when the pass began.
    fresh : pyarrow.Table
        Rows to be added: `imgId`, `uri`, `prompt` and the user's own columns.
    first : int
        The row that the first of them becomes.
    source : int
        Which of the manifest's sources they come from.
    summary : Summary
        Of that source.
    jobs : tuple of Job
        The parts to be computed, in order.
    listed : str
        Digest of what the source listed; empty if some of it differs from what is cached.
    sources : OpenSources
        Those of the manifest.
    changes : Changes
        In what the source differs from the rows that are cached.
    stamps : numpy.ndarray, int64, shape (rows, 2), or None
        Size and time of the image of every row there will be; None for who does not record the pass.
    """

    folder: Path
    manifest: Manifest
    fresh: pa.Table
    first: int
    source: int
    summary: Summary
    jobs: tuple[Job, ...]
    listed: str
    sources: OpenSources
    changes: Changes = field(default_factory=Changes)
    stamps: NDArray[np.int64] | None = None

    def rows(self, job: Job) -> Slice:
        """Give the rows of a job: fresh ones, or cached ones that lack a column."""
        if job.start < self.first:
            return cached_slice(self.folder, job, self.manifest)
        return slice_of(job, self.fresh, self.first, self.manifest.extra)


def image_columns(job: Job) -> list[Column]:
    """Name the columns of a job that a worker computes; targets are left to whoever records the parts."""
    return [column for column in job.columns if not column.from_prompts]


def slice_of(job: Job, fresh: pa.Table, first: int, extra: tuple[str, ...]) -> Slice:
    """Take the rows of a job out of the rows to be added.

    Parameters
    ----------
    job : Job
        With `start` ≥ `first`.
    fresh : pyarrow.Table
        From `listing.fresh_rows`.
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


def cached_slice(folder: Path, job: Job, manifest: Manifest) -> Slice:
    """Read the rows of a job back from their part of the column `rows`."""
    column = manifest.columns[0]
    wanted = ("imgId", "uri", "prompt", MORE_PROMPTS, "sha256", "status")
    names = {name: dataset for name, dataset in manifest.row_datasets.items() if name in wanted}
    text = read_rows_part(folder, column, column.parts[job.number], list(names.values()))
    return Slice(job.number, job.start, {name: text[dataset] for name, dataset in names.items()})
