"""Shards: one pass shared by processes that have nothing in common but a folder (a SLURM array, xargs)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from img2prompt_cache.cache.manifest_file import save_manifest
from img2prompt_cache.cache.writer import writing
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.engines.base import Parts, Staged, adopt_in_order
from img2prompt_cache.extraction.execute import execute
from img2prompt_cache.extraction.handover import is_staged, load_pass, save_pass, stage
from img2prompt_cache.extraction.listing import list_pairs
from img2prompt_cache.extraction.plan import plan_of, prepare, require_room
from img2prompt_cache.extraction.report import Clock, Report
from img2prompt_cache.extraction.request import ExtractConfig, backbones_of
from img2prompt_cache.extraction.stamps import save_stamps
from img2prompt_cache.extraction.update import take_in
from img2prompt_cache.extraction.work import Job, Pass
from img2prompt_cache.models.loader import Models
from img2prompt_cache.models.specs import split_alias
from img2prompt_cache.progress import Callback, Event, ignore, task
from img2prompt_cache.sources.base import Source
from img2prompt_cache.tables import counted


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What a shard did.

    Attributes
    ----------
    parts, rows : int
        That it computed now.
    left : int
        Parts of the whole pass that nobody has finished yet.
    seconds : float
        Wall time.
    stages : dict of str to float
        Seconds of work in each stage, summed over threads.
    """

    parts: int
    rows: int
    left: int
    seconds: float
    stages: dict[str, float]


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``"i/n"``, i from 1 to n.

    Raises
    ------
    UsageError
        If it is anything else.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f'`shard="{text}"`: write i/n with i from 1 to n, for example 1/8', parameter="shard"
        )
    return int(found[1]), int(found[2])


def extract_shard(
    folder: Path, source: Source, config: ExtractConfig, shard: tuple[int, int], tell: Callback = ignore
) -> ShardReport:
    """Compute every n-th part of a pass and leave it for `finish`.

    The first shard to come holds the cache's lock while it lists the source and writes the pass down; from
    then on no shard waits for another. A shard that was killed is run again; what it had finished stays.

    Parameters
    ----------
    folder, source, config
        As for `run_pass`; the same for all shards.
    shard : tuple of int
        i and n, from `parse_shard`.
    tell : callable
        Takes notes, the `Plan` of this shard and the steps of the task ``"extract"``.

    Raises
    ------
    UsageError
        If the pass under way is another one.
    Img2PromptError
        As `run_pass`.
    """
    started = time.perf_counter()
    work = load_pass(folder)
    if work is None:
        with writing(folder, wait=True):
            work = load_pass(folder)
            if work is None:
                source, listing = list_pairs(source)
                work, models = prepare(folder, source, listing, config, tell)
                work = take_in(work, models, tell)
                require_room(folder, plan_of(work))
                save_manifest(folder, work.manifest)
                if work.stamps is not None:
                    save_stamps(folder, work.stamps)
                if work.jobs:
                    save_pass(work)
    _require_same(work, source, config)
    index, count = shard
    mine = tuple(job for job in work.jobs[index - 1 :: count] if not is_staged(work, job))
    models, clock = config.make_models(), Clock()
    models.load(column for job in mine for column in job.columns if not column.from_prompts)
    plan = plan_of(replace(work, jobs=mine))
    tell(Event("plan", value=plan))
    if mine:
        with task(tell, "extract", plan.work) as advance:
            worker = Worker(models.backbone, work.manifest.batch_size, on_batch=advance, clock=clock)
            for job in mine:
                _stage(work, job, worker)
    return ShardReport(
        parts=len(mine),
        rows=plan.work,
        left=sum(not is_staged(work, job) for job in work.jobs),
        seconds=time.perf_counter() - started,
        stages=dict(clock.seconds),
    )


def finish(folder: Path, config: ExtractConfig, tell: Callback = ignore) -> Report:
    """Check what the shards of a pass left, record it in order and compute the targets.

    Killed anywhere, the same call goes on.

    Parameters
    ----------
    folder : pathlib.Path
        The cache.
    config : ExtractConfig
        Its device is the target encoder's.
    tell : callable
        As for `run_pass`.

    Raises
    ------
    UsageError
        If no pass is under way.
    Img2PromptError
        If a shard has not finished, or what it left is damaged.
    """
    started = time.perf_counter()
    if load_pass(folder) is None:
        raise UsageError(f"no shards to finish in {folder}; run `extract()` with `shard` first")
    with writing(folder):
        work = load_pass(folder)
        if work is None:
            raise UsageError(f"the pass over {folder} was finished just now by another process")
        left = [job for job in work.jobs if not is_staged(work, job)]
        if left:
            raise Img2PromptError(
                f"{counted(len(left), 'part is', 'parts are')} not computed yet, the first of them "
                f"{left[0].number}; run the shards "
                "that have not ended well again, then `finish=True`"
            )
        return execute(work, config.make_models(), _Staged(), tell, started)


@dataclass(frozen=True, slots=True)
class _Staged:
    """The engine that computes nothing: takes what shards have staged."""

    here = False

    def parts(self, work: Pass, models: Models, advance: Callable[[int], None], clock: Clock) -> Parts:
        return adopt_in_order(work, _nobody, advance, clock)


def _nobody(left: list[Job]) -> Staged:
    yield from ()


def _require_same(work: Pass, source: Source, config: ExtractConfig) -> None:
    root = work.manifest.sources[work.source]["root"]
    if str(source.root.resolve()) != root:
        raise UsageError(
            f"a pass over {root} is under way in {work.folder}; end it with `finish=True` "
            "before another source is taken in"
        )
    manifest = work.manifest
    unknown = [name for name in config.backbones if manifest.column("features", split_alias(name)[0]) is None]
    if config.encoder and manifest.column("targets", split_alias(config.encoder)[0]) is None:
        unknown.append(config.encoder)
    if unknown:
        raise UsageError(
            f"the pass under way in {work.folder} does not have {unknown[0]}; every shard names the same "
            "backbones. End it with `finish=True`, then add the new one"
        )
    encoders = [config.encoder] if config.encoder else []
    backbones = config.backbones or backbones_of(work.manifest)
    if config.make_models().declare(work.manifest, backbones, encoders) != work.manifest:
        raise UsageError(
            f"the pass under way in {work.folder} keeps other columns of its backbones; every shard names "
            "the same. End it with `finish=True`, then add the new ones"
        )


def _stage(work: Pass, job: Job, worker: Worker) -> None:
    stage(work, job, lambda folder: worker.compute_job(work, job, folder))
