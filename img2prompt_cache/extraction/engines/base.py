"""What an engine is, and what engines with several workers share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeAlias

from img2prompt_cache.cache.manifest import Column, Part
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.handover import adopt, is_staged, load_pass, stage
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.work import Job, Pass
from img2prompt_cache.models.loader import Models

Done: TypeAlias = tuple[Job, list[tuple[Column, Part]]]
"""A job and its parts, under their final names."""

Parts: TypeAlias = Generator[Done, None, None]
Staged: TypeAlias = Generator[tuple[int, Mapping[str, float]], None, None]
"""The number of each part that was staged, and the seconds of each stage."""


class Engine(Protocol):
    """Computes the parts of a pass that are made from images."""

    @property
    def here(self) -> bool:
        """Whether it computes in this process, with the models that it is given."""

    def parts(self, work: Pass, models: Models, advance: Callable[[int], None], clock: Clock) -> Parts:
        """Compute every job.

        Parameters
        ----------
        work : Pass
        models : Models
            For an engine that computes `here`.
        advance : callable
            Called with the number of rows that were done.
        clock : Clock
            Charged with the time of each stage, summed over workers.

        Yields
        ------
        Done
            In the order of `work.jobs`. The caller records each before it asks for the next.
        """


class Stager:
    """A worker of a shared pass: reads the plan from the cache's folder, computes jobs and stages them.

    Parameters
    ----------
    folder : pathlib.Path
        The cache.
    device : str
        For the models.
    lanes : int or None
        As for `encode.encode_batches`.

    Raises
    ------
    Img2PromptError
        If no pass is under way there, as seen from this machine.
    """

    def __init__(self, folder: Path, device: str, lanes: int | None) -> None:
        work = load_pass(folder)
        if work is None:
            raise Img2PromptError(
                f"a worker sees no pass under way in {folder}; every machine must see the cache and the "
                "source under the same path"
            )
        self.work = work
        self._models, self._lanes = Models(device=device), lanes
        self._jobs = {job.number: job for job in work.jobs}

    def run(self, number: int, advance: Callable[[int], None]) -> dict[str, float]:
        """Compute and stage the job of a part; give the seconds of each stage."""
        job, clock = self._jobs[number], Clock()
        worker = Worker(self._models.backbone, self.work.manifest.batch_size, self._lanes, advance, clock)
        stage(self.work, job, lambda folder: worker.compute_job(self.work, job, folder))
        return clock.seconds


def adopt_in_order(
    work: Pass,
    run: Callable[[list[Job]], Staged],
    advance: Callable[[int], None],
    clock: Clock,
) -> Parts:
    """Let workers stage jobs in any order, and take them over in the pass's order.

    Parameters
    ----------
    work : Pass
        Written down already.
    run : callable
        Given the jobs that are not staged yet, yields the number of each when it is, and its seconds.
    advance, clock
        As for `Engine.parts`; jobs that were staged before are counted, the others are left to `run`.
    """
    left = [job for job in work.jobs if not is_staged(work, job)]
    waiting = {job.number for job in left}
    for job in work.jobs:
        if job.number not in waiting:
            advance(job.stop - job.start)
    with closing(run(left)) as done:
        for job in work.jobs:
            while job.number in waiting:
                number, seconds = next(done)
                waiting.discard(number)
                clock.add(Clock(dict(seconds)))
            parts = adopt(work, job)
            if parts is None:
                raise Img2PromptError(
                    f"a worker finished part {job.number}, and it cannot be seen from here; every machine "
                    f"must see {work.folder} under the same path"
                )
            yield job, parts
