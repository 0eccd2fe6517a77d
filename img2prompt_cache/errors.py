"""Errors a person can act on.

Everything the library raises on purpose derives from `Img2PromptError`; the command line prints its message
as one line and exits with `exit_code`. A message says what is wrong, which file or option, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Img2PromptError(Exception):
    """A failure that the user can act on: damaged data, an unreachable hub, no room left."""

    exit_code = 1


class UsageError(Img2PromptError):
    """A wrong argument: an unknown name, a missing file, an option that does not fit."""

    exit_code = 2


class ImageError(Img2PromptError):
    """An image that cannot be used. `str(error)` is the reason stored with its row."""


def check(condition: bool, why: str) -> None:
    """Refuse data that does not say what it should; whoever reads it tells the user where it stands.

    Raises
    ------
    ValueError
        With `why`, if the condition does not hold.
    """
    if not condition:
        raise ValueError(why)


def unknown(kind: str, value: str, valid: Iterable[str]) -> UsageError:
    """Build the error for a name that does not exist, naming the nearest valid ones.

    Parameters
    ----------
    kind : str
        What the name stands for, as the user knows it: ``"head"``, ``"--format"``.
    value : str
        What was given.
    valid : iterable of str
        Every valid name.

    Returns
    -------
    UsageError
        To be raised by the caller.
    """
    names = list(valid)
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(value.lower(), lowered, n=3, cutoff=0.4)
    near = [lowered[name] for name in close] or names[:12]
    return UsageError(f"unknown {kind} {value!r}; did you mean {', '.join(near)}?")
