"""The one pass: list the source, compute the parts that are missing, record each as it is done."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from img2prompt_cache.cache import FAILED, Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.manifest import Column, Manifest, save_manifest
from img2prompt_cache.models import Models, Request, choose_columns
from img2prompt_cache.plan import (
    Job,
    bytes_needed,
    cached_slice,
    extra_columns,
    find_jobs,
    first_occurrences,
    fresh_rows,
    slice_of,
)
from img2prompt_cache.reader import Clock, Slice
from img2prompt_cache.sources import reopen_source
from img2prompt_cache.targets import compute_targets
from img2prompt_cache.view import NAME as VIEW
from img2prompt_cache.view import build_view
from img2prompt_cache.worker import compute_part
from img2prompt_cache.writer import commit, open_manifest, writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Listing, Source, Summary

PART_ROWS = 1024
BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pass is going to do, shown before the first batch.

    Attributes
    ----------
    rows : int
        Rows the cache will have.
    fresh : int
        Rows that are new.
    work : int
        Rows to go through, in all parts that lack a column.
    columns : tuple of str
        Folders of the columns to be written.
    bytes : int
        Room the new parts take, estimated.
    summary : Summary
        Of the source.
    """

    rows: int
    fresh: int
    work: int
    columns: tuple[str, ...]
    bytes: int
    summary: Summary


@dataclass(frozen=True, slots=True)
class Report:
    """What a cache holds after a pass, and what the pass did.

    Attributes
    ----------
    rows, ok, failed : int
        Of the whole cache.
    fresh : int
        Rows this pass added.
    identical : int
        Rows whose image is byte for byte that of an earlier row.
    without_prompt : int
        Rows that have no prompt.
    reasons : dict of str to int
        Why images failed, most frequent first.
    seconds : float
        Wall time of the pass.
    stages : dict of str to float
        Seconds of work in each stage, summed over threads.
    """

    rows: int
    ok: int
    failed: int
    fresh: int
    identical: int
    without_prompt: int
    reasons: dict[str, int]
    seconds: float
    stages: dict[str, float]


class Watcher(Protocol):
    """Told how a pass goes."""

    def note(self, message: str) -> None:
        """Take a line worth saying."""

    def plan(self, plan: Plan) -> None:
        """Take the plan, before the first batch."""

    def advance(self, rows: int) -> None:
        """Take notice that `rows` more rows were done."""


def extract(folder: Path, source: Source, request: Request, watcher: Watcher) -> Report:
    """Bring a cache up to date: every column it has, or was asked for, over every row of a source.

    Killed anywhere, the same call goes on where it stopped and ends with the same bytes.

    Parameters
    ----------
    folder : pathlib.Path
        The cache; made if it is not there.
    source : Source
        Where pairs come from. Rows cached from it before stay as they are; new ones are added.
    request : Request
        Which columns, made how.
    watcher : Watcher
        Told how it goes.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        If the request does not fit the source or the cache.
    Img2PromptError
        If the cache is locked, was made differently, all images are bad, or there is too little room.
    """
    started = time.perf_counter()
    clock = Clock()
    listing = source.list()
    with writing(folder):
        manifest = open_manifest(folder)
        if manifest is None:
            backbones, encoder, preset = choose_columns(request)
            encoders: tuple[str, ...] = (encoder,)
            manifest = _empty(request, listing, preset, watcher)
        else:
            backbones = request.backbones or tuple(c.spec for c in manifest.of_kind("features"))
            known = tuple(c.spec for c in manifest.of_kind("targets"))
            encoders = (request.encoder,) if request.encoder else known
        manifest, number = _with_source(manifest, source, watcher)
        fresh = _fresh(folder, manifest, listing, number, watcher)
        models = Models(request)
        manifest = models.declare(manifest, backbones, encoders)
        jobs = find_jobs(folder, manifest, len(fresh), number)
        models.load(column for job in jobs for column in job.columns)
        plan = _plan(manifest, listing, fresh, jobs)
        _require_room(folder, plan)
        watcher.plan(plan)
        save_manifest(folder, manifest)
        if jobs:
            work = _Work(folder, {number: source}, models, fresh, manifest.rows, clock, watcher)
            manifest = work.run(manifest, jobs)
        if jobs or not (folder / VIEW).exists():
            build_view(folder, manifest)
    return _report(folder, plan, clock, time.perf_counter() - started)


def _empty(request: Request, listing: Listing, preset: dict[str, str] | None, watcher: Watcher) -> Manifest:
    if preset is not None:
        watcher.note(f"preset {preset['name']}: {preset['reason']}")
    return Manifest(
        part_rows=request.part_rows or PART_ROWS,
        batch_size=request.batch_size or BATCH_SIZE,
        columns=(Column("rows", "", "rows", (), "text", {}),),
        preset=preset,
        extra=extra_columns(listing.table),
    )


def _with_source(manifest: Manifest, source: Source, watcher: Watcher) -> tuple[Manifest, int]:
    """Find the source among those of the cache, or add it; give its number."""
    entry = {**source.settings, "root": str(source.root.resolve())}
    roots = [known["root"] for known in manifest.sources]
    number = roots.index(entry["root"]) if entry["root"] in roots else None
    if number is None:
        moved = [
            i
            for i, root in enumerate(roots)
            if Path(root).name == source.root.name and not Path(root).exists()
        ]
        if len(moved) == 1:
            number = moved[0]
            watcher.note(f"the source {roots[number]} is taken to have moved to {entry['root']}")
    if number is None:
        return replace(manifest, sources=(*manifest.sources, entry)), len(manifest.sources)
    sources = (*manifest.sources[:number], entry, *manifest.sources[number + 1 :])
    return replace(manifest, sources=sources), number


def _fresh(folder: Path, manifest: Manifest, listing: Listing, number: int, watcher: Watcher) -> pa.Table:
    """The rows of the listing that are not cached yet."""
    cached: dict[str, list[str]] = {"imgId": [], "prompt": []}
    if manifest.rows:
        cache = Cache(folder)
        cache.require_undamaged([manifest.columns[0]])
        cached = cache.text("imgId", "prompt")
    origin = [part.source for part in manifest.columns[0].parts for _ in range(part.start, part.stop)]
    fresh, changed = fresh_rows(listing.table, cached, origin, number)
    if changed:
        watcher.note(f"{changed} prompts read otherwise now than when they were cached; the cached ones stay")
    return fresh


def _plan(manifest: Manifest, listing: Listing, fresh: pa.Table, jobs: list[Job]) -> Plan:
    return Plan(
        rows=manifest.rows + len(fresh),
        fresh=len(fresh),
        work=sum(job.stop - job.start for job in jobs),
        columns=tuple(dict.fromkeys(column.folder for job in jobs for column in job.columns)),
        bytes=bytes_needed(jobs),
        summary=listing.summary,
    )


def _require_room(folder: Path, plan: Plan) -> None:
    free = shutil.disk_usage(folder).free
    if plan.bytes > free:
        raise Img2PromptError(
            f"{folder} needs about {plan.bytes / 1e6:,.0f} MB more, and the disk has {free / 1e6:,.0f} MB "
            "left; make room or name another folder with --cache"
        )


@dataclass(slots=True)
class _Work:
    """The loop over jobs: rows in, parts out, each recorded as soon as it is whole."""

    folder: Path
    sources: dict[int, Source]
    models: Models
    fresh: pa.Table
    first: int
    clock: Clock
    watcher: Watcher

    def run(self, manifest: Manifest, jobs: list[Job]) -> Manifest:
        same = self._same_prompts(jobs)
        for job in jobs:
            rows = self._rows(manifest, job)
            images = [column for column in job.columns if column.kind in ("rows", "features")]
            if images:
                parts = compute_part(
                    rows,
                    images,
                    self._source(manifest, job.source),
                    {c.spec: self.models.backbone(c) for c in images if c.kind == "features"},
                    self.folder,
                    batch_size=manifest.batch_size,
                    on_batch=self.watcher.advance,
                    clock=self.clock,
                )
                parts = [(c, replace(p, source=job.source) if c.kind == "rows" else p) for c, p in parts]
                manifest = commit(self.folder, manifest, parts)
            else:
                self.watcher.advance(len(rows))
            for column in job.columns:
                if column.kind == "targets":
                    current = manifest.column("targets", column.spec) or column
                    part = compute_targets(
                        job.number,
                        job.start,
                        rows.text["prompt"],
                        same,
                        current,
                        self.models.encoder(column),
                        self.folder,
                        self.clock,
                    )
                    manifest = commit(self.folder, manifest, [(current, part)])
        return manifest

    def _rows(self, manifest: Manifest, job: Job) -> Slice:
        if job.start < self.first:
            return cached_slice(self.folder, job, manifest.columns[0].parts[job.number])
        return slice_of(job, self.fresh, self.first, manifest.extra)

    def _source(self, manifest: Manifest, number: int) -> Source:
        if number not in self.sources:
            self.sources[number] = reopen_source(manifest.sources[number])
        return self.sources[number]

    def _same_prompts(self, jobs: list[Job]) -> NDArray[np.int64]:
        cached = Cache(self.folder).text("prompt")["prompt"] if self.first else []
        added = self.fresh["prompt"].fill_null("").cast(pa.large_string())
        return first_occurrences(pa.chunked_array([pa.array(cached, pa.large_string()), *added.chunks]))


def _report(folder: Path, plan: Plan, clock: Clock, seconds: float) -> Report:
    text = Cache(folder).text("prompt", "sha256", "status", "reason")
    failed = text["status"].count(FAILED)
    if failed == plan.rows:
        ((reason, count),) = Counter(text["reason"]).most_common(1)
        raise Img2PromptError(f"none of the {plan.rows} images could be used; {count} of them: {reason}")
    good = [sha256 for sha256, status in zip(text["sha256"], text["status"], strict=True) if status != FAILED]
    return Report(
        rows=plan.rows,
        ok=plan.rows - failed,
        failed=failed,
        fresh=plan.fresh,
        identical=len(good) - len(set(good)),
        without_prompt=sum(not prompt for prompt in text["prompt"]),
        reasons=dict(Counter(reason for reason in text["reason"] if reason).most_common()),
        seconds=seconds,
        stages=dict(clock.seconds),
    )
