"""Seeds: written as ``0-4`` or ``0,2,7``, and read back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from img2prompt_cache.errors import UsageError

MOST = 1000
"""Seeds in one list: more are a slip of the keyboard."""

LARGEST = 2**32 - 1


def read_seeds(seeds: str | int | Iterable[int], parameter: str) -> tuple[int, ...]:
    """Read seeds in any spelling.

    Parameters
    ----------
    seeds : str, int or iterable of int
        ``"0-4"`` is 0, 1, 2, 3, 4; ``"0,2,7-9"`` joins several.
    parameter : str
        What names them.

    Raises
    ------
    UsageError
        If there is none, one stands twice, or one is no whole number from 0 to 2³² − 1.
    """
    if isinstance(seeds, int):
        seeds = (seeds,)
    found = tuple(_parsed(seeds, parameter) if isinstance(seeds, str) else seeds)
    wrong = [seed for seed in found if type(seed) is not int or not 0 <= seed <= LARGEST]
    if wrong or not found or len({*found}) < len(found):
        why = f"{wrong[0]!r} is none" if wrong else "one stands twice" if found else "there is none"
        raise UsageError(
            f"`{parameter}` takes whole numbers from 0 to {LARGEST}, each once, and {why}",
            parameter=parameter,
        )
    return found


def _parsed(text: str, parameter: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        read = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part)
        first, last = (int(read[1]), int(read[2] or read[1])) if read else (1, 0)
        if first > last or last - first >= MOST:
            raise UsageError(
                f"`{parameter}` {text!r}: write seeds like 0-4 or 0,2,7, {MOST} at most", parameter=parameter
            )
        found.extend(range(first, last + 1))
    return found


def seeds_text(seeds: Sequence[int]) -> str:
    """Write ascending seeds briefly: ``0-4``, ``0,2,7``; nothing for none."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
