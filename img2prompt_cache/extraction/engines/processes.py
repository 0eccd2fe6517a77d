"""Worker processes of this machine: each holds the models and stages one job after the other."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.engines.base import Staged, Stager
from img2prompt_cache.extraction.work import Job

ATTEMPTS = 3
"""How often a job is tried by workers that die at it: the kernel may have killed one for memory."""

_CONTEXT = multiprocessing.get_context("spawn")  # a fork would inherit CUDA and the threads of torch


def run_processes(
    folder: Path, devices: list[str], lanes: int, jobs: list[Job], advance: Callable[[int], None]
) -> Staged:
    """Stage jobs in one process for each device.

    Parameters
    ----------
    folder : pathlib.Path
        A cache with a pass under way.
    devices : list of str
        One for each worker; names may repeat.
    lanes : int
        Of each worker.
    jobs : list of Job
    advance : callable
        Called with the number of rows that were done.

    Yields
    ------
    number, seconds
        Of each job when it is staged, in any order.

    Raises
    ------
    Img2PromptError
        What a worker failed with, or that workers die again and again.
    """
    queue = deque((job.number, 1) for job in jobs)
    workers: dict[int, _Worker] = {}
    try:
        while queue or any(worker.job for worker in workers.values()):
            for place, device in enumerate(devices):
                if queue and place not in workers:
                    workers[place] = _Worker(folder, device, lanes)
                if queue and workers[place].job is None:
                    workers[place].send(queue.popleft())
            places = {worker.pipe: place for place, worker in workers.items() if worker.job}
            for pipe in wait(places):
                place = places[cast(Connection, pipe)]
                worker = workers[place]
                number, attempt = worker.job or (0, 0)
                message = worker.receive()
                if isinstance(message, int):
                    worker.rows += message
                    advance(message)
                elif isinstance(message, dict):
                    worker.job, worker.rows = None, 0
                    yield number, message
                elif message is not None:
                    raise message
                else:
                    code = workers.pop(place).end()
                    if attempt == ATTEMPTS:
                        raise Img2PromptError(
                            f"{ATTEMPTS} workers died at part {number} (exit code {code}); if the system "
                            "killed them for memory, ask for fewer `workers`"
                        )
                    advance(-worker.rows)
                    queue.appendleft((number, attempt + 1))
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """One worker process, seen from the process that started it.

    Attributes
    ----------
    job : tuple of int or None
        The number of the part it is computing, and which attempt this is.
    rows : int
        Rows of that part that are done.
    """

    def __init__(self, folder: Path, device: str, lanes: int) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.job: tuple[int, int] | None = None
        self.rows = 0
        self._process: BaseProcess = _CONTEXT.Process(
            target=_work, args=(theirs, folder, device, lanes), daemon=True
        )
        # Ctrl-C goes to every process of the terminal, and one that is still importing would show a
        # traceback. The mask is inherited; a worker never needs the signal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the pipe ends when the worker does

    def send(self, job: tuple[int, int]) -> None:
        """Give it a job: its part's number, and which attempt this is."""
        self.job = job
        with suppress(BrokenPipeError):  # it died, which `receive` will find
            self.pipe.send(job[0])

    def receive(self) -> int | dict[str, float] | Exception | None:
        """Wait for its next message: rows done, the seconds of a finished job, an error; None if it died."""
        try:
            message: int | dict[str, float] | Exception = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        return message

    def end(self) -> int | None:
        """Stop it, whatever it is doing; give its exit code."""
        if self.job is not None:
            self._process.terminate()
        self.pipe.close()
        self._process.join()
        return self._process.exitcode


def _work(pipe: Connection, folder: Path, device: str, lanes: int) -> None:
    # The process that started the workers ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stager = None
    with suppress(EOFError, BrokenPipeError):  # the process that started this one has ended
        while True:
            number = pipe.recv()
            try:
                stager = stager or Stager(folder, device, lanes)
                pipe.send(stager.run(number, pipe.send))
            except BrokenPipeError:
                raise
            except Img2PromptError as error:
                pipe.send(error)
            except Exception:
                pipe.send(Img2PromptError(f"a worker failed: {traceback.format_exc(limit=-1)}"))
