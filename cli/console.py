"""What the commands say: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from img2prompt_cache.tables import printable, shorten

if TYPE_CHECKING:
    from img2prompt_cache.progress import Callback, Event
    from img2prompt_cache.progress_line import ProgressLine

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
CacheOption = Annotated[
    str, typer.Option("--cache", metavar="DIR", help="Folder of the cache.", show_default=True)
]
DEFAULT_CACHE = "cache/default"
MACHINES = "Several processes or machines"
EngineOption = Annotated[
    str, typer.Option(help="Where to compute: local, or ray for a Ray cluster.", rich_help_panel=MACHINES)
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="With --engine ray: parts computed at once. Default: one for each machine.",
        rich_help_panel=MACHINES,
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Ray cluster: auto, host:port or ray://host:port. Default: this machine only.",
        rich_help_panel=MACHINES,
    ),
]
RuntimeOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What computes backbones on a processor: auto, torch or openvino (extra cpu). auto: what made "
        "the column; for a new one of 512 images or more, what is faster.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")]
TrackOption = Annotated[
    str | None,
    typer.Option(
        metavar="TRACKER",
        help="Also log settings, curves and metrics to tensorboard, wandb or mlflow.",
        show_default=False,
    ),
]
_RUN = "A run folder, its name in the cache, or hf://OWNER/NAME. Default: the newest run."
RunCacheOption = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="The cache to find the run in. Default: `cache/default`."),
]
LicenseOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Licence that you share the run under, such as mit.")
]
RunArgument = Annotated[str | None, typer.Argument(metavar="RUN", help=_RUN, show_default=False)]
RunOption = Annotated[str | None, typer.Option(metavar="DIR", help=_RUN)]
RunsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Run folders, or names in the cache's `runs`. Default: all.",
        show_default=False,
    ),
]
BankOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Prompts to choose from: a text file, a table, or `starter` for the bank that comes with this "
        "program. Default: those of the cache.",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Search this folder for the weights of the run, if they lie elsewhere now; repeatable.",
        show_default=False,
    ),
]
ReplaceOption = Annotated[
    list[str] | None,
    typer.Option(metavar="OLD=NEW", help="Replace the beginning of paths in the run's specs; repeatable."),
]
SplitOption = Annotated[
    str,
    typer.Option(help="group (near-identical prompts stay on one side), random, or a column of your table."),
]
GroupThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="X",
        help="Smallest cosine of near-identical prompts, which stay on one side of a split. Default: 0.8 by "
        "MiniLM; without its embeddings in the cache, fitted to those of its first encoder.",
        show_default=False,
    ),
]
LONGEST = 2000
"""Characters of a line that are shown; the whole text is in `--json` and in files."""
NUMBER = re.compile(r"-?\d+(\.\d+)?|–")


@dataclass(slots=True)
class Stop:
    """Whether this process was asked to stop, by Ctrl-C or SIGTERM, and whether it works in batches."""

    asked: bool = False
    in_batches: bool = False

    def check(self) -> None:
        """Stop if it was asked for; a library may have swallowed the exception."""
        if self.asked:
            raise KeyboardInterrupt


stop = Stop()

spelled: Callable[[str], str] = str
"""Spells parameters and verbs in messages of the library as options and commands; `main` sets it."""


class Stderr:
    """What this process writes on stderr: the line of what is under way, and whether notes are wanted."""

    line: ProgressLine | None = None
    quiet = False

    def waits(self) -> None:
        """Show tasks alone from now on: the command waits for somebody where there is none."""
        if self.line:
            self.line.waits = True

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the line away while something else is written, maybe on the same terminal."""
        with self.line.hidden() if self.line else nullcontext():
            yield


stderr = Stderr()


@contextmanager
def showing(*, quiet: bool) -> Iterator[None]:
    """Show what is under way on stderr while a command runs; with `quiet`, neither that nor notes."""
    from img2prompt_cache.progress import listening
    from img2prompt_cache.progress_line import ProgressLine

    stderr.line, stderr.quiet = ProgressLine(shown=False if quiet else None), quiet
    try:
        with listening(tell):
            yield
    finally:
        stderr.line.close()
        stderr.line, stderr.quiet = None, False


def given(context: typer.Context) -> set[str]:
    """Name the parameters that were given, also where they repeat a default."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def result(text: str) -> None:
    """Print a result, on stdout."""
    with stderr.hidden():
        print("\n".join(map(clean, text.split("\n"))))  # noqa: T201


def result_json(data: dict[str, Any]) -> None:
    """Print one JSON object, on stdout; ASCII, so that it is valid in whatever encoding the terminal has."""
    with stderr.hidden():
        print(json.dumps(data, allow_nan=False))  # noqa: T201


def note(message: str) -> None:
    """Say something on the way, in one line, on stderr, unless that is to be quiet."""
    if not stderr.quiet:
        warn(message)


def warn(message: str) -> None:
    """Say what is wrong, in one line, on stderr."""
    if sys.stderr:  # print would take stdout where it is closed
        with stderr.hidden():
            print(clean(message), file=sys.stderr)  # noqa: T201


def clean(text: str) -> str:
    """Make text from anywhere fit for one line of a terminal; see `tables.printable`. Long ones are cut."""
    return shorten(printable(shorten(text, LONGEST)), LONGEST)


def crowded(folder: str) -> str:
    """Warn of a column with more parts than many readers can open."""
    return (
        f"{folder} has more parts than many HDF5 readers may open at once, and those show what is left out "
        "as empty; "
        + spelled("`extract()` merges parts of one source, and `pack(out)` writes one file for other readers")
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows in aligned columns; numbers to the right, None as a dash."""
    cells = [list(header), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [all(NUMBER.fullmatch(row[i]) for row in cells[1:]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else shorten(clean(str(value)))


def tell(event: Event) -> None:
    """Show an event of a call on stderr; stop at it if that was asked."""
    stop.check()
    if event.kind == "note":
        (warn if event.warning else note)(spelled(event.message))
    elif event.kind == "plan":
        for line in str(event.value).split("\n"):
            note(spelled(line))
    elif event.kind == "step" and stderr.line:
        stderr.line.step(event.task, event.done, event.total, event.pace)


@contextmanager
def telling() -> Iterator[Callback]:
    """Give what `tell` shows to a verb, as its `progress`."""
    yield tell
