"""The local engine: this process, or several of this machine, one for each GPU where there are more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from img2prompt_cache.extraction.clock import Clock
from img2prompt_cache.extraction.encode import cores
from img2prompt_cache.extraction.engines.base import Parts, adopt_in_order
from img2prompt_cache.extraction.engines.processes import run_processes
from img2prompt_cache.extraction.handover import adopt
from img2prompt_cache.extraction.passes import HOME, Pass, Worker, image_columns, save_pass
from img2prompt_cache.models.devices import count_gpus
from img2prompt_cache.models.loader import Models


@dataclass(frozen=True, slots=True)
class Local:
    """Computes on this machine.

    Parameters
    ----------
    device : str
        ``"auto"`` spreads workers over all GPUs.
    workers : int, optional
        Processes; absent, one for each GPU that `device` leaves open, and at least one.
    """

    device: str = "auto"
    workers: int | None = None

    @property
    def here(self) -> bool:
        """Whether one worker is enough: this process."""
        return len(self._devices()) == 1

    def parts(self, work: Pass, models: Models, advance: Callable[[int], None], clock: Clock) -> Parts:
        """Compute every job, taking over those that were staged."""
        devices = self._devices()
        if len(devices) > 1:
            save_pass(work)
            lanes = max(1, cores() // len(devices))
            return adopt_in_order(
                work, lambda left: run_processes(work.folder, devices, lanes, left, advance), advance, clock
            )
        return self._here(work, models, advance, clock)

    def _here(self, work: Pass, models: Models, advance: Callable[[int], None], clock: Clock) -> Parts:
        worker = Worker(work, models)
        shared = (work.folder / HOME).exists()
        for job in work.jobs:
            parts = adopt(work, job) if shared or not image_columns(job) else None
            if parts is None:
                parts = worker.compute(job, work.folder, advance, clock)
            else:
                advance(job.stop - job.start)
            yield job, parts

    def _devices(self) -> list[str]:
        gpus = count_gpus() if self.device == "auto" else 0
        workers = self.workers or max(1, gpus)
        return [f"cuda:{i % gpus}" if gpus > 1 else self.device for i in range(workers)]
