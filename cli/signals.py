"""Interrupts outside of a command."""

from __future__ import annotations

import atexit
import os
import signal
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""The exit code of a process that was interrupted."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave_when_asked() -> None:
    """End the process at SIGINT and SIGTERM, at once and without a word.

    For the time before and after a command runs, when nothing can be half-done. Python's own way, an
    exception out of whatever line is being run, would show a traceback of an import.
    """
    for number in SIGNALS:
        signal.signal(number, _leave)


def ignore_when_done() -> None:
    """Have SIGINT and SIGTERM ignored once all is done and only the interpreter is left to end.

    It takes handlers written in Python away then, and a signal would kill a process that did its work.
    """
    for number in SIGNALS:
        atexit.register(signal.signal, number, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)
