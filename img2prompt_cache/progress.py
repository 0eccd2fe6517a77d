"""Progress: how every long call tells what it is doing, to one callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from img2prompt_cache.progress_line import ProgressLine

Pace: TypeAlias = Literal["even", "at most", "uneven"]
"""What is known of the units of a task: all take about the same time; or they do, and the task may end before
`total` of them; or some take much longer than others, so that nothing follows for the time that is left."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a long call.

    Attributes
    ----------
    kind : {"note", "plan", "step", "trial", "report"}
        ``"note"``: a line worth reading, in `message`. ``"plan"``: what a pass is about to do, in `value`.
        ``"step"``: `done` of `total` units of `task` are finished. ``"trial"``: a trial of a search ended, in
        `value`. ``"report"``: what a pass did, in `value`.
    task : str
        What is under way: ``"extract"``, ``"predict"``, ``"encode prompts"``. A task that starts before
        another one has ended is a part of it.
    done, total : int
        Units finished so far, and in all. The first step of a task has ``done == 0``, its last one
        ``done == total``.
    pace : {"even", "at most", "uneven"}
        Whether the time that is left can be estimated from the time that was taken; see `Pace`.
    message : str
        Text for a person, one line.
    warning : bool
        Whether the message tells of something wrong: something was left out, or a result is to be doubted.
    value : object
        A `Plan`, `Report` or `FinishedTrial`, as `kind` says.
    """

    kind: Literal["note", "plan", "step", "trial", "report"]
    task: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    value: Any = None
    pace: Pace = "even"
    warning: bool = False


Callback: TypeAlias = Callable[[Event], None]
"""Takes every event of a call, in the thread that made the call. What it raises ends the call."""


def ignore(event: Event) -> None:
    """Take an event and do nothing with it."""


_listener: ContextVar[Callback] = ContextVar("listener", default=ignore)


def note(tell: Callback, message: str) -> None:
    """Tell a line worth reading."""
    tell(Event("note", message=message))


def warn(tell: Callback, message: str) -> None:
    """Tell of something that is wrong, though the call goes on."""
    tell(Event("note", message=message, warning=True))


def say(message: str) -> None:
    """Tell a line worth reading to whoever listens to the call that this is a part of, as `stage` does."""
    note(_listener.get(), message)


@contextmanager
def task(tell: Callback, name: str, total: int, pace: Pace = "even") -> Iterator[Callable[[int], None]]:
    """Tell of a task: its start, and every step.

    Yields
    ------
    callable
        Takes the number of units that were finished since the last step.
    """
    done = 0

    def advance(units: int) -> None:
        nonlocal done
        done += units
        tell(Event("step", name, done, total, pace=pace))

    tell(Event("step", name, 0, total, pace=pace))
    yield advance
    if done < total and pace != "even":
        advance(total - done)


@contextmanager
def stage(name: str, total: int = 1, pace: Pace = "even") -> Iterator[Callable[[int], None]]:
    """Tell of a task whoever listens to the call that this is a part of, as `listening` says; else nobody.

    For computations that take no callback, such as the fit of a head, which stays as silent as any estimator
    where nobody listens. Other threads are not listened to.

    Parameters
    ----------
    name, total, pace
        As for `task`. A total of 1 stands for work whose share that is done is not known.

    Yields
    ------
    callable
        Takes the number of units that were finished since the last step.
    """
    with task(_listener.get(), name, total, pace) as advance:
        yield advance
        if total == 1:
            advance(1)


def _show(line: ProgressLine, event: Event) -> None:
    """Show an event on stderr."""
    if event.kind in ("note", "plan"):
        from img2prompt_cache.tables import printable

        for text in (event.message or str(event.value)).split("\n"):
            line.note(printable(text))
    elif event.kind == "step":
        line.step(event.task, event.done, event.total, event.pace)


@contextmanager
def listening(progress: bool | Callback) -> Iterator[Callback]:
    """Turn the `progress` parameter of a call into its callback, which then is told every `stage`, too.

    Parameters
    ----------
    progress : bool or callable
        False: silence. True: notes, plans, and, on a terminal or in a notebook, what is under way, on stderr.
        A callable is called with every event.

    Yields
    ------
    callable
    """
    if callable(progress):
        tell, close = progress, None
    elif progress:
        from img2prompt_cache.progress_line import ProgressLine

        line = ProgressLine()
        tell, close = partial(_show, line), line.close
    else:
        tell, close = ignore, None
    before = _listener.set(tell)
    try:
        yield tell
    finally:
        with suppress(ValueError):  # a generator may be closed in another context than it was started in
            _listener.reset(before)
        if close:
            close()
