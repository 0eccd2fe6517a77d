"""Progress: how every long call tells what it is doing, to one callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias


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
        What is under way: ``"extract"``, ``"predict"``, ``"encode prompts"``.
    done, total : int
        Units finished so far, and in all. The first step of a task has ``done == 0``.
    message : str
        Text for a person, one line.
    value : object
        A `Plan`, `Report` or `FinishedTrial`, as `kind` says.
    """

    kind: Literal["note", "plan", "step", "trial", "report"]
    task: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    value: Any = None


Callback: TypeAlias = Callable[[Event], None]
"""Takes every event of a call, in the thread that made the call. What it raises ends the call."""


def ignore(event: Event) -> None:
    """Take an event and do nothing with it."""


def note(tell: Callback, message: str) -> None:
    """Tell a line worth reading."""
    tell(Event("note", message=message))


@contextmanager
def task(tell: Callback, name: str, total: int) -> Iterator[Callable[[int], None]]:
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
        tell(Event("step", name, done, total))

    tell(Event("step", name, 0, total))
    yield advance


@contextmanager
def listening(progress: bool | Callback) -> Iterator[Callback]:
    """Turn the `progress` parameter of a call into its callback.

    Parameters
    ----------
    progress : bool or callable
        False: silence. True: notes, plans and progress bars on stderr, or in the notebook. A callable is
        called with every event.

    Yields
    ------
    callable
    """
    if callable(progress):
        yield progress
    elif progress:
        with _bars() as tell:
            yield tell
    else:
        yield ignore


@contextmanager
def _bars() -> Iterator[Callback]:
    """Show a bar with rate and remaining time for each task; it is one line where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    from img2prompt_cache.tables import printable

    class Rate(TextColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.completed / task.elapsed if task.elapsed else 0:.1f}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    shown: dict[str, Any] = {}

    def tell(event: Event) -> None:
        if event.kind in ("note", "plan"):
            lines = (event.message or str(event.value)).split("\n")
            text = "\n".join(printable(line) for line in lines)
            bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif event.kind == "step":
            if not shown:
                bars.start()
            if event.done == 0 or event.task not in shown:
                shown[event.task] = bars.add_task(event.task, total=event.total)
            bars.update(shown[event.task], completed=event.done)

    try:
        yield tell
    finally:
        if shown:
            bars.stop()
