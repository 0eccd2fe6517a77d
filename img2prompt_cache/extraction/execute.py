"""A pass from its listing to its report: missing parts are computed, and recorded as each is finished."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from img2prompt_cache.cache.joining import join_small_parts
from img2prompt_cache.cache.manifest import Column, Part
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.writer import commit, remove_superseded, writing
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.engines import Engine, make_engine
from img2prompt_cache.extraction.handover import clear
from img2prompt_cache.extraction.listing import list_pairs
from img2prompt_cache.extraction.plan import plan_of, prepare, require_room
from img2prompt_cache.extraction.recompute import Recompute
from img2prompt_cache.extraction.report import Clock, Counts, Plan, Report, count_rows
from img2prompt_cache.extraction.retry import retry
from img2prompt_cache.extraction.stamps import save_stamps
from img2prompt_cache.extraction.targets import CachedTargets, TargetWorker, first_occurrences, texts_of
from img2prompt_cache.extraction.update import take_in
from img2prompt_cache.extraction.work import Job, Pass
from img2prompt_cache.models.encoders.base import tell_overlong
from img2prompt_cache.progress import Callback, Event, ignore, task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.extraction.request import ExtractConfig
    from img2prompt_cache.models.loader import Models
    from img2prompt_cache.sources.base import Source


def run_pass(
    folder: Path,
    source: Source,
    config: ExtractConfig,
    tell: Callback = ignore,
    engine: Engine | None = None,
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
    tell : callable
        Takes notes, the `Plan` and the steps of the task ``"extract"``.
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
    source, listing = list_pairs(source)
    with writing(folder):
        work, models = prepare(folder, source, listing, config, tell)
        if config.retry_failed:
            recompute = Recompute(folder, models, work.sources)
            work = replace(work, manifest=retry(work.manifest, recompute, tell))
        work = take_in(work, models, tell)
        if work.jobs and not engine.here:
            models = config.make_models()  # workers load their own
        return execute(work, models, engine, tell, started)


def execute(work: Pass, models: Models, engine: Engine, tell: Callback, started: float) -> Report:
    """Compute the parts of a pass and record each as soon as it is whole.

    Parameters
    ----------
    work : Pass
        Of a locked cache.
    models : Models
        For what is computed in this process.
    engine : Engine
    tell : callable
    started : float
        `time.perf_counter` when the pass began.
    """
    clock = Clock()
    needed = (c for job in work.jobs for c in job.columns if engine.here or c.from_prompts)
    models.load(needed)
    plan = plan_of(work)
    require_room(work.folder, plan)
    tell(Event("plan", value=plan))
    save_manifest(work.folder, work.manifest)
    if work.stamps is not None:
        # Before an image is read: one that is replaced meanwhile is looked at again by the next pass.
        save_stamps(work.folder, work.stamps)
    if work.jobs:
        with task(tell, "extract", plan.work) as advance:
            _record(work, models, engine, advance, clock, tell)
    join_small_parts(work.folder, load_manifest(work.folder), tell)
    remove_superseded(work.folder, load_manifest(work.folder))
    counts = count_rows(work.folder, (work.source, work.listed))
    clear(work.folder)
    missing = Cache(work.folder).lacking()
    return _report(counts, plan, missing, clock, time.perf_counter() - started)


def _record(
    work: Pass,
    models: Models,
    engine: Engine,
    advance: Callable[[int], None],
    clock: Clock,
    tell: Callback,
) -> None:
    """The loop over jobs: parts come in from the engine, targets are added, the manifest follows."""
    manifest, folder = work.manifest, work.folder
    targets = TargetWorker(CachedTargets(folder), _same_prompts(work), clock)
    overlong: Counter[str] = Counter()
    with closing(engine.parts(work, models, advance, clock)) as finished:
        for job in work.jobs:
            # Recorded together, so that whoever reads meanwhile finds rows with every column. The targets
            # are made first, since they take less time: this is what a pass loses that is killed in between.
            made = []
            for column in job.columns:
                if column.from_prompts:
                    current = manifest.column(column.kind, column.spec) or column
                    rows, encoder = work.rows(job), models.encoder(column)
                    made.append((current, targets.compute(rows, current, encoder, folder)))
                    overlong[column.spec] += encoder.overlong(texts_of(rows, current))
            _, parts = next(finished)
            if parts:
                _require_some(work, job, parts)
            manifest = commit(folder, manifest, [*parts, *made])
    for column in work.manifest.of_kind("targets"):
        if overlong[column.spec]:
            tell_overlong(overlong[column.spec], models.encoder(column), tell)


def _require_some(work: Pass, job: Job, parts: list[tuple[Column, Part]]) -> None:
    """Refuse a column that would hold nothing: a source that is gone must not pass for one that was read."""
    missing = max(len(part.missing) for _, part in parts)
    if missing > 1:
        rows = work.rows(job)
        if missing == sum(map(rows.was_good, range(len(rows)))):
            raise Img2PromptError(
                f"none of the {missing} good images of rows {job.start} to {job.stop - 1} could be read "
                "again: they are gone or have changed. Bring the source back as it was, or give other "
                "images a cache of their own with `cache`"
            )


def _same_prompts(work: Pass) -> NDArray[np.int64]:
    """For every row of the pass, the first row with the same prompt."""
    chunks = work.fresh["prompt"].fill_null("").cast(pa.string()).chunks
    if work.first:
        chunks = [*Cache(work.folder).table("prompt")["prompt"][: work.first].chunks, *chunks]
    first = first_occurrences(pa.chunked_array(chunks, pa.string()))
    pa.default_memory_pool().release_unused()
    return first


def _report(counts: Counts, plan: Plan, missing: dict[str, int], clock: Clock, seconds: float) -> Report:
    if counts.failed and counts.failed + counts.removed == plan.rows:
        reason, count = next(iter(counts.reasons.items()))
        if counts.failed == 1:
            told = f"the one image could not be used: {reason}. Once it can be read"
        else:
            told = f"none of the {counts.failed} images could be used; {count} of them: {reason}. Once they "
            told += "can be read"
        raise Img2PromptError(f"{told}, `retry_failed=True` tries again")
    return Report(
        rows=plan.rows,
        ok=plan.rows - counts.failed - counts.removed,
        failed=counts.failed,
        fresh=plan.fresh,
        identical=counts.identical,
        without_prompt=counts.unprompted,
        reasons=counts.reasons,
        missing=missing,
        seconds=seconds,
        stages=dict(clock.seconds),
        removed=counts.removed,
        changes=plan.changes,
    )
