"""What the commands say: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
CacheOption = Annotated[
    str, typer.Option("--cache", metavar="DIR", help="The cache's folder.", show_default=True)
]
DEFAULT_CACHE = "cache/default"


def result(text: str) -> None:
    """Print a result, on stdout."""
    print(text)  # noqa: T201


def result_json(data: dict[str, Any]) -> None:
    """Print one JSON object, on stdout."""
    print(json.dumps(data, ensure_ascii=False))  # noqa: T201


def note(message: str) -> None:
    """Say something on the way, on stderr."""
    print(message, file=sys.stderr)  # noqa: T201


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows in aligned columns; numbers to the right."""
    cells = [list(map(str, header)), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


class Bar(Protocol):
    """A progress bar."""

    def __call__(self, done: int) -> None:
        """Move on by `done`."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Bar]:
    """Show one progress bar with rate and time left, on stderr; a line at the end where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Rate(TextColumn):
        def render(self, task: Any) -> Any:
            from rich.text import Text

            return Text(f"{task.finished_speed or task.speed or 0:.1f}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
