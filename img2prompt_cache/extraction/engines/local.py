"""The local engine: this process, or several of this machine, one for each GPU where there are more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.engines.base import Parts, adopt_in_order
from img2prompt_cache.extraction.engines.processes import run_processes
from img2prompt_cache.extraction.handover import HOME, adopt, save_pass
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.work import Pass, image_columns
from img2prompt_cache.models.devices import cores, count_gpus
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
        worker = Worker(models.backbone, work.manifest.batch_size, on_batch=advance, clock=clock)
        shared = (work.folder / HOME).exists()
        for job in work.jobs:
            parts = adopt(work, job) if shared or not image_columns(job) else None
            if parts is None:
                parts = worker.compute_job(work, job, work.folder)
            else:
                advance(job.stop - job.start)
            yield job, parts

    def _devices(self) -> list[str]:
        gpus = count_gpus() if self.device == "auto" else 0
        workers = self.workers or max(1, gpus)
        return [f"cuda:{i % gpus}" if gpus > 1 else self.device for i in range(workers)]
