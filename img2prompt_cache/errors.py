"""Errors a person can act on.

Everything the library raises on purpose derives from `Img2PromptError`; the command line prints its message
as one line and exits with `exit_code`. A message says what is wrong, which file or parameter, and what to do.

A message names a parameter as Python spells it, in backticks: `` `top_k` ``, `` `refit=False` ``, and a
function of the library with parentheses: `` `extract()` ``. Only the command line spells them as options and
commands.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Img2PromptError(Exception):
    """A failure that the user can act on: damaged data, an unreachable hub, no room left.

    Parameters
    ----------
    message : str
    parameter : str, optional
        The parameter that is to blame, where it is one.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class UsageError(Img2PromptError):
    """A wrong argument: an unknown name, a missing file, a value that does not fit."""

    exit_code = 2


class DataError(Img2PromptError, ValueError):
    """Arrays that cannot be used: shapes that do not fit each other, NaN, values too large for float32.

    It is a `ValueError`, as scikit-learn's tools expect.
    """


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


def unknown(
    kind: str, value: str, valid: Iterable[str], *, where: str = "", parameter: str | None = None
) -> UsageError:
    """Build the error for a name that does not exist, naming the nearest valid ones.

    Parameters
    ----------
    kind : str
        What the name stands for, as the user knows it: ``"head"``, ``"`format`"``.
    value : str
        What was given.
    valid : iterable of str
        Every valid name.
    where : str
        Of what, or where it was named: ``"of head 'mlp'"``.
    parameter : str, optional
        The parameter that was given the name.

    Returns
    -------
    UsageError
        To be raised by the caller.
    """
    names = list(valid)
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(value.lower(), lowered, n=3, cutoff=0.4)
    within = [name for name in lowered if len(value) > 2 and value.lower() in name]
    near = [lowered[name] for name in dict.fromkeys([*close, *within[:3]])] or names[:12]
    told = " ".join(filter(None, ("unknown", kind, repr(value), where)))
    return UsageError(f"{told}; did you mean {', '.join(near)}?", parameter=parameter)


def first_line(error: BaseException, most: int = 200) -> str:
    """Give the first line of an error, cut to so many characters; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]
