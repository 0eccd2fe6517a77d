"""The entry point: gathers the commands, turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from img2prompt_cache.errors import Img2PromptError

from .compare import compare
from .demo import demo
from .doctor import doctor
from .extract import extract
from .fit import fit
from .info import info
from .predict import predict
from .verify import verify
from .weights import weights

INTERRUPTED = 130

app = typer.Typer(
    name="img2prompt-cache",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (extract, fit, predict, compare, info, verify, demo, weights, doctor):
    app.command()(command)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(version("img2prompt-cache"))  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Cache frozen image features once, then predict prompt embeddings with fast heads.

    extract SOURCE, then fit, then predict; `demo` shows all of it on pictures it draws itself.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(arguments, prog_name="img2prompt-cache")
    except KeyboardInterrupt:
        _fail("interrupted; what was finished is kept. Run the same command again to go on.", INTERRUPTED)
    except Img2PromptError as error:
        if debug:
            raise
        _fail(f"error: {error}", error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone, `head` for one; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        where = f" ({error.filename})" if error.filename else ""
        if error.errno == errno.ENOSPC:
            _fail(f"error: the disk is full{where}; make room and run the same command again", 1)
        _fail(f"error: {error.strerror or error}{where}", 1)
    except Exception as error:
        if debug:
            raise
        _fail(f"error: {type(error).__name__}: {error} (unexpected; --debug shows where)", 1)
    sys.exit(0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201
    sys.exit(code)
