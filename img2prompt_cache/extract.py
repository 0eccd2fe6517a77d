"""The one pass: list the source, compute the parts that are missing, record each as it is done."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from img2prompt_cache.cache import FAILED, Cache
from img2prompt_cache.clock import Clock
from img2prompt_cache.engines import Engine, make_engine
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.manifest import Column, Manifest, Part
from img2prompt_cache.manifestfile import load_manifest, save_manifest
from img2prompt_cache.models import Models, Request, backbones_of, choose_columns
from img2prompt_cache.parts import read_text
from img2prompt_cache.passes import Pass
from img2prompt_cache.plan import (
    Job,
    bytes_needed,
    choose_part_rows,
    digest_of,
    extra_columns,
    find_jobs,
    first_occurrences,
    fresh_rows,
)
from img2prompt_cache.redo import Redo
from img2prompt_cache.retry import retry
from img2prompt_cache.staging import clear
from img2prompt_cache.targets import Earlier, compute_targets
from img2prompt_cache.view import build_view, recall
from img2prompt_cache.writer import commit, open_manifest, writing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Listing, Source, Summary

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
    missing : dict of str to int
        How many good images could not be read again, for each column that lacks any.
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
    missing: dict[str, int]
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


def extract(
    folder: Path, source: Source, request: Request, watcher: Watcher, engine: Engine | None = None
) -> Report:
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
    engine : Engine, optional
        Computes the parts; `engines.local.Local` on the request's device if absent.

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
    engine = engine or make_engine(device=request.device)
    listing = source.list()
    with writing(folder):
        work, models = prepare(folder, source, listing, request, watcher)
        if request.retry_failed:
            work = replace(work, manifest=retry(work.manifest, Redo(folder, models, work.sources), watcher))
        if work.jobs and not engine.here:
            models = Models(request)  # workers load their own
        return run(work, models, engine, watcher, started)


def prepare(
    folder: Path, source: Source, listing: Listing, request: Request, watcher: Watcher
) -> tuple[Pass, Models]:
    """Settle what a pass has to do, with every column that is wanted declared.

    Parameters
    ----------
    folder, source, request, watcher
        As for `extract`. The cache must be locked.
    listing : Listing
        Of the source.

    Returns
    -------
    Pass
        Its manifest is not saved yet.
    Models
        Those of new columns are loaded.
    """
    pa.default_memory_pool().release_unused()  # Arrow would keep what listing took
    manifest = open_manifest(folder)
    if manifest is None:
        backbones, encoder, preset = choose_columns(request)
        encoders: tuple[str, ...] = (encoder,)
        manifest = _empty(request, listing, preset, watcher)
    else:
        backbones = request.backbones or backbones_of(manifest)
        known = tuple(c.spec for c in manifest.of_kind("targets"))
        encoders = (request.encoder,) if request.encoder else known
    manifest, number = _with_source(manifest, source, watcher)
    fresh, listed = _fresh(folder, manifest, listing, number, watcher)
    models = Models(request)
    manifest = models.declare(manifest, backbones, encoders, watcher.note)
    jobs = tuple(find_jobs(folder, manifest, len(fresh), number))
    work = Pass(
        folder, manifest, fresh, manifest.rows, number, listing.summary, jobs, listed, {number: source}
    )
    return work, models


def run(work: Pass, models: Models, engine: Engine, watcher: Watcher, started: float) -> Report:
    """Compute the parts of a pass, record each as soon as it is whole, and say how it went.

    Parameters
    ----------
    work : Pass
        Of a locked cache.
    models : Models
        For what is computed in this process.
    engine : Engine
    watcher : Watcher
    started : float
        `time.perf_counter` when the pass began.
    """
    clock = Clock()
    needed = (c for job in work.jobs for c in job.columns if engine.here or c.kind == "targets")
    models.load(needed)
    plan = plan_of(work)
    require_room(work.folder, plan)
    watcher.plan(plan)
    save_manifest(work.folder, work.manifest)
    if work.jobs:
        _record(work, models, engine, watcher, clock)
    counts = _counts(work)
    clear(work.folder)
    missing = load_manifest(work.folder).missing
    return _report(counts, plan, missing, clock, time.perf_counter() - started)


def _empty(request: Request, listing: Listing, preset: dict[str, str] | None, watcher: Watcher) -> Manifest:
    if preset is not None:
        watcher.note(f"preset {preset['name']}: {preset['reason']}")
    return Manifest(
        part_rows=request.part_rows or choose_part_rows(len(listing.table)),
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


def _fresh(
    folder: Path, manifest: Manifest, listing: Listing, number: int, watcher: Watcher
) -> tuple[pa.Table, str]:
    """The rows of the listing that are not cached yet, and its digest unless prompts have changed."""
    listed = digest_of(listing.table)
    if not manifest.rows:
        return listing.table, listed
    cache = Cache(folder)
    cache.require_undamaged([manifest.columns[0]])
    if (recall(folder) or {}).get("listed") == [number, listed]:
        return listing.table[:0], listed
    parts = manifest.columns[0].parts
    origin = np.repeat([part.source for part in parts], [part.stop - part.start for part in parts])
    fresh, changed = fresh_rows(listing.table, cache.table("imgId", "prompt"), origin, number)
    if changed:
        watcher.note(
            f"{changed} prompts read otherwise now than when they were cached; the cached ones stay, and a "
            "new cache (--cache) takes the new ones"
        )
    return fresh, "" if changed else listed


def plan_of(work: Pass) -> Plan:
    """Say what a pass is going to do."""
    return Plan(
        rows=work.first + len(work.fresh),
        fresh=len(work.fresh),
        work=sum(job.stop - job.start for job in work.jobs),
        columns=tuple(dict.fromkeys(column.folder for job in work.jobs for column in job.columns)),
        bytes=bytes_needed(work.jobs),
        summary=work.summary,
    )


def require_room(folder: Path, plan: Plan) -> None:
    """Refuse to begin what cannot end.

    Raises
    ------
    Img2PromptError
        If the disk has less room than the new parts take.
    """
    free = shutil.disk_usage(folder).free
    if plan.bytes > free:
        raise Img2PromptError(
            f"{folder} needs about {plan.bytes / 1e6:,.1f} MB more, and the disk has {free / 1e6:,.1f} MB "
            "left; make room or name another folder with --cache"
        )


def _record(work: Pass, models: Models, engine: Engine, watcher: Watcher, clock: Clock) -> None:
    """The loop over jobs: parts come in from the engine, targets are added, the manifest follows."""
    manifest, folder = work.manifest, work.folder
    same, earlier = _same_prompts(work), Earlier(folder)
    with closing(engine.parts(work, models, watcher.advance, clock)) as finished:
        for job, parts in finished:
            if parts:
                _require_some(work, job, parts)
                manifest = commit(folder, manifest, parts)
            for column in job.columns:
                if column.kind == "targets":
                    current = manifest.column("targets", column.spec) or column
                    part = compute_targets(
                        job.number,
                        job.start,
                        work.rows(job).text["prompt"],
                        same,
                        current,
                        models.encoder(column),
                        earlier,
                        folder,
                        clock,
                    )
                    manifest = commit(folder, manifest, [(current, part)])


def _require_some(work: Pass, job: Job, parts: list[tuple[Column, Part]]) -> None:
    """Refuse a column that would hold nothing: a source that is gone must not pass for one that was read."""
    missing = max(len(part.missing) for _, part in parts)
    if missing > 1:
        rows = work.rows(job)
        if missing == sum(map(rows.was_good, range(len(rows)))):
            raise Img2PromptError(
                f"none of the {missing} good images of rows {job.start} to {job.stop - 1} could be read "
                "again: they are gone or have changed. Bring the source back as it was, or give other "
                "images a cache of their own with --cache"
            )


def _same_prompts(work: Pass) -> NDArray[np.int64]:
    chunks = work.fresh["prompt"].fill_null("").cast(pa.string()).chunks
    if work.first:
        chunks = [*Cache(work.folder).table("prompt")["prompt"][: work.first].chunks, *chunks]
    first = first_occurrences(pa.chunked_array(chunks, pa.string()))
    pa.default_memory_pool().release_unused()
    return first


@dataclass(slots=True)
class _Counts:
    """What a cache's rows say, counted part by part so that they are never all in memory."""

    failed: int = 0
    identical: int = 0
    without_prompt: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def _counts(work: Pass) -> _Counts:
    """Bring `cache.h5` up to date and give the counts of the cache, as `cache.h5` knows them if it was."""
    listed = [work.source, work.listed]
    known = recall(work.folder) or {}
    if known.get("listed") == listed:
        with suppress(KeyError, TypeError):
            return _Counts(**known["counts"])
    manifest = load_manifest(work.folder)
    counts = _count(work.folder, manifest)
    build_view(work.folder, manifest, {"listed": listed, "counts": asdict(counts)})
    return counts


def _count(folder: Path, manifest: Manifest) -> _Counts:
    failed = without_prompt = 0
    reasons: Counter[str] = Counter()
    images = [np.empty(0, np.uint64)]
    for part in manifest.columns[0].parts:
        names = ["prompt", "sha256", "status", "reason"]
        text = read_text(folder / part.file, names, part.stop - part.start)
        good = [status != FAILED for status in text["status"]]
        failed += good.count(False)
        without_prompt += text["prompt"].count("")
        reasons.update(filter(None, text["reason"]))
        # 64 bits tell a billion images apart well enough to count them.
        images.append(np.array([int(sha[:16], 16) for sha in compress(text["sha256"], good)], np.uint64))
    hashes = np.concatenate(images)
    identical = len(hashes) - len(np.unique(hashes))
    return _Counts(failed, identical, without_prompt, dict(reasons.most_common()))


def _report(counts: _Counts, plan: Plan, missing: dict[str, int], clock: Clock, seconds: float) -> Report:
    if counts.failed == plan.rows:
        reason, count = next(iter(counts.reasons.items()))
        raise Img2PromptError(
            f"none of the {plan.rows} images could be used; {count} of them: {reason}. Once they can be "
            "read, --retry-failed tries them again"
        )
    return Report(
        rows=plan.rows,
        ok=plan.rows - counts.failed,
        failed=counts.failed,
        fresh=plan.fresh,
        identical=counts.identical,
        without_prompt=counts.without_prompt,
        reasons=counts.reasons,
        missing=missing,
        seconds=seconds,
        stages=dict(clock.seconds),
    )
