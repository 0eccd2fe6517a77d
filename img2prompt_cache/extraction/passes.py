"""A pass: what everybody who works on it must agree on, and the worker that computes its parts.

Where several processes share a pass, the one that holds the cache's lock writes the pass down
(`save_pass`); the others read it (`load_pass`) instead of listing the source again, so that all of them see
the same rows under the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from img2prompt_cache.cache.manifest import Column, Manifest, Part
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.clock import Clock
from img2prompt_cache.extraction.compute import compute_part
from img2prompt_cache.extraction.plan import Job, cached_slice, find_jobs, slice_of
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.files import write_atomically
from img2prompt_cache.models.loader import Models
from img2prompt_cache.sources import reopen_source
from img2prompt_cache.sources.base import COLUMNS, Source, Summary

HOME = ".pass"
"""Folder inside the cache where a shared pass keeps its plan and its finished, not yet recorded parts."""
PLAN = "plan.arrow"
_KEY = b"img2prompt-cache"


@dataclass(frozen=True, slots=True)
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
        Digest of what the source listed; empty if some of it was cached otherwise.
    sources : dict of int to Source
        Those of the manifest's that are open; `open_source` adds to them.
    """

    folder: Path
    manifest: Manifest
    fresh: pa.Table
    first: int
    source: int
    summary: Summary
    jobs: tuple[Job, ...]
    listed: str = ""
    sources: dict[int, Source] = field(default_factory=dict)

    def open_source(self, number: int) -> Source:
        """Open one of the manifest's sources, once."""
        if number not in self.sources:
            self.sources[number] = reopen_source(self.manifest.sources[number])
        return self.sources[number]

    def rows(self, job: Job) -> Slice:
        """Give the rows of a job: fresh ones, or cached ones that lack a column."""
        if job.start < self.first:
            return cached_slice(self.folder, job, self.manifest.columns[0].parts[job.number])
        return slice_of(job, self.fresh, self.first, self.manifest.extra)


def image_columns(job: Job) -> list[Column]:
    """Name the columns of a job that a worker computes; targets are left to whoever records the parts."""
    return [column for column in job.columns if column.kind != "targets"]


@dataclass(slots=True)
class Worker:
    """Computes parts of a pass, one after the other, with the models it holds.

    Attributes
    ----------
    work : Pass
    models : Models
    lanes : int or None
        As for `reader.encode_batches`.
    """

    work: Pass
    models: Models
    lanes: int | None = None

    def compute(
        self, job: Job, folder: Path, on_batch: Callable[[int], None], clock: Clock
    ) -> list[tuple[Column, Part]]:
        """Compute the image columns of a job and write them below `folder`.

        Parameters
        ----------
        job : Job
        folder : pathlib.Path
            The cache's folder, or one beside it that is moved there later.
        on_batch, clock
            As for `worker.compute_part`.

        Returns
        -------
        list of (Column, Part)
        """
        columns = image_columns(job)
        parts = compute_part(
            self.work.rows(job),
            columns,
            self.work.open_source(job.source),
            {c.spec: self.models.backbone(c) for c in columns if c.kind != "rows"},
            folder,
            batch_size=self.work.manifest.batch_size,
            on_batch=on_batch,
            clock=clock,
            lanes=self.lanes,
        )
        return [(c, replace(p, source=job.source) if c.kind == "rows" else p) for c, p in parts]


def save_pass(work: Pass) -> Path:
    """Write a pass down for others to join, in one atomic file; the manifest must be saved already.

    Returns
    -------
    pathlib.Path
        The file.
    """
    told = {
        "first": work.first,
        "source": work.source,
        "summary": asdict(work.summary),
        "listed": work.listed,
    }
    table = work.fresh.replace_schema_metadata({_KEY: json.dumps(told).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    path = _plan_path(work.folder)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, sink.getvalue())
    return path


def load_pass(folder: Path) -> Pass | None:
    """Read the pass that is under way in a cache; its rows are mapped, not read into memory.

    Returns
    -------
    Pass or None
        With the jobs that are not recorded yet; None if no pass was written down.

    Raises
    ------
    Img2PromptError
        If what was written down is damaged or does not fit the cache.
    """
    path = _plan_path(folder)
    if not path.exists():
        return None
    manifest = load_manifest(folder)
    try:
        fresh = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        fresh.validate(full=True)
        told: dict[str, Any] = json.loads((fresh.schema.metadata or {})[_KEY])
        first, source = int(told["first"]), int(told["source"])
        summary = Summary(**{**told["summary"], "notes": tuple(told["summary"]["notes"])})
        left = first + len(fresh) - manifest.rows
        if tuple(fresh.column_names[:3]) != COLUMNS or not 0 <= left <= len(fresh):
            raise ValueError("it does not fit the cache")
        manifest.sources[source]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Img2PromptError(
            f"{path} is not the plan of a pass over this cache ({error}); delete {path.parent} and start the "
            "pass again"
        ) from None
    jobs = tuple(find_jobs(folder, manifest, left, source))
    return Pass(folder, manifest, fresh, first, source, summary, jobs, str(told["listed"]))


def _plan_path(folder: Path) -> Path:
    home = folder / HOME
    if home.is_symlink():
        raise Img2PromptError(
            f"{home} is a link, and what a pass leaves must lie in the cache's folder; delete it"
        )
    return home / PLAN
