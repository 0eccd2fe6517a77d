"""The entry point: gathers the commands, turns errors into one line and an exit code."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from img2prompt_cache.destination import refuse_url
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.shortage import limit_of, shortage

from . import console
from .app import app as serve_app
from .bundle import bundle
from .card import card
from .compare import compare
from .dedup import dedup
from .demo import demo
from .doctor import doctor
from .explore import explore
from .export import export
from .extract import extract
from .fit import fit
from .influence import influence
from .info import info
from .pack import pack
from .predict import predict
from .push import push
from .repair import repair
from .report import report
from .search import search
from .signals import INTERRUPTED, SIGNALS, leave_when_asked
from .spelling import spell
from .top import top
from .tune import tune
from .verify import verify
from .watch import watch
from .weights import weights

NAME = "img2prompt-cache"
LEAST_MEMORY = 512 << 20
"""Address space below which the linear algebra of NumPy waits for memory without end, instead of failing."""
LEAST_FOR_TORCH = 3 << 30
"""Address space below which PyTorch is not imported: now and then its threads end the process there."""
TORCH_COMMANDS = (
    "explore",
    "extract",
    "predict",
    "watch",
    "search",
    "bundle",
    "export",
    "repair",
    "demo",
    "app",
)
"""Commands that are refused below it at once: PyArrow's threads do the same while images are listed."""
BATCH_COMMANDS = ("extract", "fit", "tune", "predict", "watch", "repair", "demo")
"""Commands that work in batches, and end with the one in hand when they are interrupted."""
GOES_ON = ("extract", "tune", "repair")
"""Those of them that always keep what is finished, and go on with the rest."""


PLACES = ("cache", "out", "run")
"""Options that are paths, though they are passed on as they were written."""
HUB = "hf://"
"""How the address of a run on the Hub begins, which may stand where a run is read."""


def _with_paths(command: Callable[..., None]) -> Callable[..., None]:
    """Have a command refuse URLs where it takes paths; a run that is read may be one on the Hub."""

    @wraps(command)
    def checked(**options: object) -> None:
        for name, value in options.items():
            for one in value if isinstance(value, list) else [value]:
                shared = name == "run" and isinstance(one, str) and one.startswith(HUB)
                if isinstance(one, Path) or (isinstance(one, str) and name in PLACES and not shared):
                    refuse_url(one, name)
        command(**options)

    return checked


app = typer.Typer(
    name=NAME,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(explore, extract, fit, tune, influence, predict, watch, compare, report, serve_app, search, top, dedup),
    *(info, verify, repair, pack, bundle, card, push, export, demo, weights, doctor),
):
    app.command()(_with_paths(command))


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        console.result(version(NAME))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="Show neither progress nor notes on stderr; also after the command."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; also after the command.")] = False,
) -> None:
    """Run image encoders once, cache their features, and predict prompt embeddings with fast heads.

    extract SOURCE, then fit, then predict; `demo` shows all of it on pictures it draws itself.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    leave_when_asked()
    sys.unraisablehook = _unraisable
    if "--debug" not in sys.argv and not sys.warnoptions:
        # What a library finds worth a warning, a user cannot act on.
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        for number in SIGNALS:
            signal.signal(number, _interrupt)
        code = run(sys.argv[1:])
        leave_when_asked()
    except KeyboardInterrupt:  # it is raised once only, and fell between two lines of these or of `run`
        code = INTERRUPTED
    gc.freeze()  # else Python takes a second to collect the modules of a model, one by one
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command: results on stdout, an error as one line on stderr.

    Parameters
    ----------
    arguments : list of str
        Without the program's name.

    Returns
    -------
    int
        The exit code: 0, 1 for a failure, 2 for wrong use, 130 if interrupted.
    """
    console.stop.asked = False
    debug, arguments = _take("--debug", arguments)
    quiet, arguments = _take("--quiet", arguments)
    arguments = arguments or ["--help"]
    with console.showing(quiet=quiet):
        return _run(arguments, debug)


def _take(option: str, arguments: list[str]) -> tuple[bool, list[str]]:
    """Take an option of every command out of the arguments, wherever it stands before ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    left = [argument for argument in arguments[:end] if argument != option]
    return len(left) < end, [*left, *arguments[end:]]


def _other_cache(arguments: list[str]) -> str:
    """Give the cache that a command is given; empty if that is none, or the default one."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    cache = ""
    for argument, following in pairwise([*arguments[:end], ""]):
        if argument == "--cache":
            cache = following
        elif argument.startswith("--cache="):
            cache = argument.removeprefix("--cache=")
    return "" if os.path.normpath(cache) == console.DEFAULT_CACHE else cache


def _run(arguments: list[str], debug: bool) -> int:
    console.stop.in_batches = arguments[0] in BATCH_COMMANDS
    cache = _other_cache(arguments)
    console.spelled = partial(spell, app=app, program=NAME, command=arguments[0], cache=cache)
    try:
        _require_memory(arguments)
        code = typer.main.get_command(app)(arguments, prog_name=NAME, standalone_mode=False) or 0
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, `head` for one; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # A library that is interrupted may raise an error of its own.
        if console.stop.asked:
            code = INTERRUPTED
        elif debug:
            raise
        else:
            return _failed(error)
    if code == INTERRUPTED and console.stop.in_batches:
        console.warn(f"interrupted; {_left(arguments)}")
    return int(code)


def _left(arguments: list[str]) -> str:
    """Say what an interrupted command leaves, and what the same command would do."""
    command, options = arguments[0], {each.partition("=")[0] for each in arguments}
    if command == "demo":
        return "what was made is kept. With --overwrite the same command starts over."
    needed = {"fit": {"--seeds", "--split-seeds"}, "watch": {"--out"}}.get(command)
    goes_on = command in GOES_ON if needed is None else bool(needed & options)
    if goes_on and not (command == "fit" and "--overwrite" in options):
        return "what was finished is kept. Run the same command again to go on."
    return "nothing half-done is left. Run the same command again to start over."


class _WithoutTorch:
    """A finder of modules, the first that is asked, by which importing PyTorch is a MemoryError."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torch":
            raise MemoryError


def _require_memory(arguments: list[str]) -> None:
    limit = limit_of("AS")
    if limit is None or {"--help", "-h", "--version"} & {*arguments}:
        return
    if limit < (LEAST_FOR_TORCH if arguments[0] in TORCH_COMMANDS else LEAST_MEMORY):
        raise MemoryError
    if limit < LEAST_FOR_TORCH and "torch" not in sys.modules:
        # Whether another command needs it depends on the head: it is refused where it is imported.
        sys.meta_path.insert(0, _WithoutTorch())


def _failed(error: Exception) -> int:
    console.warn(f"error: {_told(error)}")
    return int(getattr(error, "exit_code", 1))


def _told(error: Exception) -> str:
    """Say in one line what is wrong and, where it is not said yet, what to do."""
    if isinstance(error, Img2PromptError):
        return console.spelled(str(error))
    if hasattr(error, "format_message"):  # Typer's own, about an option or an argument
        context = getattr(error, "ctx", None)
        path = context.command_path if context else NAME
        return f"{error.format_message().rstrip('.')}; `{path} --help` shows what there is"
    short = shortage(error)
    if short:
        return short
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}"
    return f"{type(error).__name__}: {error} (unexpected; --debug shows where)"


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop where the work stands; asked twice, leave at once: what is on disk is whole at any moment."""
    if console.stop.asked:
        os._exit(INTERRUPTED)
    console.stop.asked = True
    if console.stop.in_batches:
        with suppress(OSError):  # nobody may be there to read it
            os.write(2, b"\nstopping when the batch in hand is done; once more stops at once\n")
    raise KeyboardInterrupt


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    """Stay silent where an interrupt fell into a place that cannot raise it; `console.stop` remembers it."""
    if not (console.stop.asked and issubclass(told.exc_type, KeyboardInterrupt)):
        sys.__unraisablehook__(told)
