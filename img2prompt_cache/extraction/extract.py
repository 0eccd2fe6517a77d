"""The one pass: list the source, compute the parts that are missing, record each as it is done."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from img2prompt_cache.cache.manifest import Column, Part
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.writer import commit, writing
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.agenda import prepare
from img2prompt_cache.extraction.clock import Clock
from img2prompt_cache.extraction.counts import Counts, count
from img2prompt_cache.extraction.engines import Engine, make_engine
from img2prompt_cache.extraction.handover import clear
from img2prompt_cache.extraction.passes import Pass
from img2prompt_cache.extraction.plan import Job, bytes_needed, first_occurrences
from img2prompt_cache.extraction.redo import Redo
from img2prompt_cache.extraction.report import Plan, Report, Watcher
from img2prompt_cache.extraction.request import ExtractConfig
from img2prompt_cache.extraction.retry import retry
from img2prompt_cache.extraction.targets import Earlier, compute_targets
from img2prompt_cache.models.loader import Models

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Source


def extract(
    folder: Path, source: Source, config: ExtractConfig, watcher: Watcher, engine: Engine | None = None
) -> Report:
    """Bring a cache up to date: every column it has, or was asked for, over every row of a source.

    Killed anywhere, the same call goes on where it stopped and ends with the same bytes.

    Parameters
    ----------
    folder : pathlib.Path
        The cache; made if it is not there.
    source : Source
        Where pairs come from. Rows cached from it before stay as they are; new ones are added.
    config : ExtractConfig
        Which columns, made how.
    watcher : Watcher
        Told how it goes.
    engine : Engine, optional
        Computes the parts; `engines.local.Local` on the device of `config` if absent.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        If `config` does not fit the source or the cache.
    Img2PromptError
        If the cache is locked, was made differently, all images are bad, or there is too little room.
    """
    started = time.perf_counter()
    engine = engine or make_engine(device=config.device)
    listing = source.list()
    with writing(folder):
        work, models = prepare(folder, source, listing, config, watcher)
        if config.retry_failed:
            work = replace(work, manifest=retry(work.manifest, Redo(folder, models, work.sources), watcher))
        if work.jobs and not engine.here:
            models = config.make_models()  # workers load their own
        return run(work, models, engine, watcher, started)


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
    counts = count(work)
    clear(work.folder)
    missing = load_manifest(work.folder).missing
    return _report(counts, plan, missing, clock, time.perf_counter() - started)


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


def _report(counts: Counts, plan: Plan, missing: dict[str, int], clock: Clock, seconds: float) -> Report:
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
