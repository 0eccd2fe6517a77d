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
        Told how many more rows were done.

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
    crew: dict[int, _Member] = {}
    try:
        while queue or any(member.job for member in crew.values()):
            for place, device in enumerate(devices):
                if queue and place not in crew:
                    crew[place] = _Member(folder, device, lanes)
                if queue and crew[place].job is None:
                    crew[place].give(queue.popleft())
            places = {member.pipe: place for place, member in crew.items() if member.job}
            for pipe in wait(places):
                place = places[cast(Connection, pipe)]
                member = crew[place]
                number, attempt = member.job or (0, 0)
                said = member.hear()
                if isinstance(said, int):
                    member.rows += said
                    advance(said)
                elif isinstance(said, dict):
                    member.job, member.rows = None, 0
                    yield number, said
                elif said is not None:
                    raise said
                else:
                    code = crew.pop(place).end()
                    if attempt == ATTEMPTS:
                        raise Img2PromptError(
                            f"{ATTEMPTS} workers died at part {number} (exit code {code}); if the system "
                            "killed them for memory, ask for fewer `workers`"
                        )
                    advance(-member.rows)
                    queue.appendleft((number, attempt + 1))
    finally:
        for member in crew.values():
            member.end()


class _Member:
    """One worker process, seen from the process that leads."""

    def __init__(self, folder: Path, device: str, lanes: int) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.job: tuple[int, int] | None = None
        self.rows = 0
        self._process: BaseProcess = _CONTEXT.Process(
            target=_work, args=(theirs, folder, device, lanes), daemon=True
        )
        self._process.start()
        theirs.close()  # so that the pipe ends when the worker does

    def give(self, job: tuple[int, int]) -> None:
        """Hand over a job: its part's number, and which attempt this is."""
        self.job = job
        with suppress(BrokenPipeError):  # it died; `hear` tells
            self.pipe.send(job[0])

    def hear(self) -> int | dict[str, float] | Exception | None:
        """Take its next word: rows done, the seconds of a finished job, an error; None if it has died."""
        try:
            said: int | dict[str, float] | Exception = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        return said

    def end(self) -> int | None:
        """Stop it, whatever it is at; give its exit code."""
        if self.job is not None:
            self._process.terminate()
        self.pipe.close()
        self._process.join()
        return self._process.exitcode


def _work(pipe: Connection, folder: Path, device: str, lanes: int) -> None:
    # Ctrl-C goes to every process of the terminal; the one that leads ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stager = None
    with suppress(EOFError, BrokenPipeError):  # the one that leads has gone
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
