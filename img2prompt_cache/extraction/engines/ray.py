"""The Ray engine: an actor for each GPU of a cluster holds the models; parts come back on the shared path."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cluster import connected
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.engines.base import Parts, Staged, Stager, adopt_in_order
from img2prompt_cache.extraction.handover import save_pass
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.work import Job, Pass
from img2prompt_cache.models.devices import cores
from img2prompt_cache.models.loader import Models

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Ray:
    """Computes on a Ray cluster whose machines all see the cache and the source under the same paths.

    Parameters
    ----------
    device : str
        ``"cpu"`` leaves GPUs alone.
    workers : int, optional
        Actors; absent, one for each GPU of the cluster, or one for each machine where there is none.
    address : str, optional
        ``"auto"``, ``"host:port"`` or ``"ray://host:port"``; a cluster of this machine is started if absent.
    """

    device: str = "auto"
    workers: int | None = None
    address: str | None = None

    here = False

    def parts(self, work: Pass, models: Models, advance: Callable[[int], None], clock: Clock) -> Parts:
        """Compute every job on the cluster."""
        save_pass(work)
        with connected(self.address, "ray.data") as ray:
            yield from adopt_in_order(
                work, lambda left: self._run(ray, work.folder, left, advance), advance, clock
            )

    def _run(self, ray: Any, folder: Path, jobs: list[Job], advance: Callable[[int], None]) -> Staged:
        if not jobs:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False  # the pass has its own
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        machines = sum(node["Alive"] for node in ray.nodes())
        gpus = 0 if self.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        workers = min(self.workers or gpus or machines, len(jobs))
        rows = {job.number: job.stop - job.start for job in jobs}
        tasks = ray.data.from_items([{"part": job.number} for job in jobs], override_num_blocks=len(jobs))
        done = tasks.map_batches(
            _Actor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            fn_constructor_args=(
                folder.resolve(),
                "cuda" if gpus else "cpu",
                math.ceil(workers / machines),
            ),
            num_gpus=1 if gpus else 0,
            num_cpus=1,
        )
        try:
            for row in done.iter_rows():
                advance(rows[row["part"]])
                yield row["part"], dict(zip(row["stages"], row["seconds"], strict=True))
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Img2PromptError):
                raise cause from None
            raise Img2PromptError(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error


class _Actor:
    """Lives on the cluster: loads the models once, stages jobs by number."""

    def __init__(self, folder: Path, device: str, neighbours: int) -> None:
        self._stager = Stager(folder, device, max(1, cores() // neighbours))

    def __call__(self, batch: Rows) -> Rows:
        (number,) = batch["part"].tolist()
        seconds = self._stager.run(number, lambda rows: None)
        return {
            "part": np.array([number]),
            "stages": np.array([list(seconds)]),
            "seconds": np.array([list(seconds.values())]),
        }
