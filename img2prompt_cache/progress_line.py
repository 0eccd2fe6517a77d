"""The line on stderr that shows what is under way, and how long it may take."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import TextIO

QUIET = 1.0
"""Seconds before a task is shown: what is over sooner is nothing to wait for."""
WAITING = 1.0
"""Seconds without any task before the line says that there is work going on."""
TICK = 0.25
"""Seconds between two updates of the line."""
BEFORE = 0.25
"""Seconds from the start of a task in which steps are told of what was done in an earlier call."""
WINDOW = 30.0
"""Seconds of steps, at least, from which the time that is left is estimated."""
BAR = 16
"""Characters of the bar."""
WIDEST = 120


class Running:
    """A task that is under way, and when its steps were told.

    Parameters
    ----------
    name, total, pace
        As in `Event`.
    now : float
        Seconds, of any clock that never goes back.
    """

    def __init__(self, name: str, total: int, pace: str, now: float) -> None:
        self.name, self.total, self.pace = name, total, pace
        self.started, self.done = now, 0
        self._steps = deque([(now, 0)])

    def step(self, done: int, now: float) -> None:
        """Take note of a step."""
        self.done = done
        if now - self.started < BEFORE:
            self._steps.clear()
        self._steps.append((now, done))
        while len(self._steps) > 2 and self._steps[1][0] < now - WINDOW:
            self._steps.popleft()

    @property
    def rate(self) -> float:
        """Units in a second, of the last half minute or the last step; 0 before the first step."""
        (start, before), (last, done) = self._steps[0], self._steps[-1]
        return (done - before) / (last - start) if last > start else 0.0

    def left(self, now: float) -> float | None:
        """Estimate the seconds that are left; None where that would be a guess.

        The unit in hand is taken to last as long as others did. Once it has lasted longer, nothing is known
        of the rest of it.
        """
        if self.pace == "uneven" or not self.rate or now - self.started < QUIET or self.total <= 1:
            return None
        one = 1 / self.rate
        rest = self.total - self.done
        left = max((rest - 1) * one, rest * one - (now - self._steps[-1][0]))
        return left if left > 0 else None

    def text(self, now: float, *, outer: bool, least: float = 0.0) -> str:
        """Say how far it is: ``extract [####----] 25/100, 12.1/s, 0:06 left``; of a part without the bar.

        At least as many seconds are left as a part of it takes.
        """
        if self.total <= 1:
            return f"{self.name}, {clock(now - self.started)}"
        filled = BAR * min(self.done, self.total) // self.total
        drawn = f" [{'#' * filled}{'-' * (BAR - filled)}]" if outer else ""
        told = f"{self.name}{drawn} {self.done:,}/{self.total:,}"
        if outer and self.rate >= 1:
            told += f", {self.rate:,.1f}/s"
        left = self.left(now)
        if left is None:
            return f"{told}, {clock(now - self.started)} so far"
        return f"{told}, {'at most ' * (self.pace == 'at most')}{clock(max(left, least))} left"


def clock(seconds: float) -> str:
    """Spell a time as minutes and seconds, or with hours: ``0:07``, ``2:05``, ``1:00:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ProgressLine:
    """Shows the tasks that are under way in one line, which is rewritten and gone in the end.

    Nothing but notes is written where the stream is neither a terminal nor a notebook's.

    Parameters
    ----------
    stream : file, optional
        stderr if absent.
    shown : bool, optional
        Whether to show the line; decided by the stream if absent.

    Attributes
    ----------
    waits : bool
        Whether there is no work where no task is told; otherwise it is shown as such after a while.
    """

    def __init__(self, stream: TextIO | None = None, *, shown: bool | None = None) -> None:
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self.shown = is_seen(self._stream) if shown is None else shown
        self.waits = False
        self._tasks: list[Running] = []
        self._width = 0
        self._told = self._drawn = time.monotonic()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if self.shown:
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()

    def step(self, name: str, done: int, total: int, pace: str = "even") -> None:
        """Take note of a step of a task; see `Event`."""
        if self.shown:
            with self._lock:
                now = time.monotonic()
                self._step(Running(name, total, pace, now), done, now)
                if now - self._drawn >= TICK:  # long computations in C may not let the thread run
                    self._draw(self.text(now))

    def note(self, line: str) -> None:
        """Write a line that stays."""
        if self._stream is None:  # print would take stdout where stderr is closed
            return
        with self.hidden():
            print(line, file=self._stream)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the line away, so that others may write on the same terminal."""
        with self._lock:
            self._draw("")
            yield
            self._told = time.monotonic()

    def close(self) -> None:
        """Take the line away for good."""
        self._ended.set()
        with self._lock:
            self._draw("")
            self.shown = False
        if self._thread is not None:
            self._thread.join(1.0)

    def text(self, now: float) -> str:
        """Say what is under way: each task with the part of it that is under way."""
        parts = [each for each in self._tasks if now - each.started >= QUIET]
        if parts:
            inner = max((each.left(now) or 0.0 for each in parts[1:] if each.pace == "even"), default=0.0)
            first = parts[0].text(now, outer=True, least=inner)
            return " > ".join([first, *(each.text(now, outer=False) for each in parts[1:])])
        busy = not self.waits and now - self._told >= WAITING
        return f"working, {clock(now - self._told)}" if busy else ""

    def _step(self, task: Running, done: int, now: float) -> None:
        """Keep the tasks that are under way, the outermost first."""
        names = [each.name for each in self._tasks]
        if task.name in names:
            del self._tasks[names.index(task.name) + (done > 0) :]
        if done and self._tasks and self._tasks[-1].name == task.name:
            self._tasks[-1].step(done, now)
        else:
            self._tasks.append(task)
        if done >= task.total:
            self._tasks.pop()
            self._told = now

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            with self._lock:
                self._draw(self.text(time.monotonic()))

    def _draw(self, text: str) -> None:
        """Write over the line; blanks rather than escape codes, which not every terminal knows."""
        if not self.shown or not (text or self._width):
            return
        self._drawn = time.monotonic()
        text = text[: min(self._columns(), WIDEST) - 1]
        try:
            assert self._stream is not None  # noqa: S101
            self._stream.write(f"\r{text.ljust(self._width)}" + ("" if text else "\r"))
            self._stream.flush()
        except (OSError, ValueError):  # the terminal has gone
            self.shown = False
        self._width = len(text)

    def _columns(self) -> int:
        """Give the width of the terminal: that of the stream, for stdout may be a file."""
        try:
            assert self._stream is not None  # noqa: S101
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return columns or get_terminal_size().columns


def is_seen(stream: TextIO | None) -> bool:
    """Whether somebody watches a stream: it is a terminal's, or a notebook's."""
    try:
        return stream is not None and (stream.isatty() or type(stream).__module__.startswith("ipykernel"))
    except ValueError:  # it is closed
        return False
