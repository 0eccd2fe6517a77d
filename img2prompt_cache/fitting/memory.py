"""Memory for a fit: how much its rows take, and whether they are held in it or read when they are used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.errors import UsageError
from img2prompt_cache.progress import Callback, note
from img2prompt_cache.shortage import limit_of

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Head

COPIES = 3
"""Arrays of all rows that are in memory at once: all rows, those of the training side, and what a head makes
of these."""
SHARE = 0.5
"""Of the memory that is free, how much rows may take where nothing else is said."""
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?|)B?\s*", re.IGNORECASE)


def read_size(memory: str | int) -> int:
    """Read an amount of memory: bytes, or a text such as ``"8GB"``, ``"500 MB"`` or ``"2GiB"``.

    Raises
    ------
    UsageError
        If it is no such amount, or 0.
    """
    found = _SIZE.fullmatch(str(memory))
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise UsageError(f"`memory` is an amount such as 8GB or 500MB, not {memory!r}", parameter="memory")
    return size


def free_memory() -> int | None:
    """Find how much memory this process may still take, in bytes; None where the system does not tell."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        (line,) = (each for each in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in each)
        yield int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # of a container; "max" is no number
        group = Path("/sys/fs/cgroup")
        yield int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    with suppress(AttributeError, OSError, ValueError):  # not on Windows
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if (limit := limit_of("AS")) is not None:
        yield limit


def hold_rows(
    head: Head,
    rows: int,
    values: int,
    memory: str | int | None,
    *,
    teacher: Head | None = None,
    more: bool = False,
    tell: Callback,
) -> bool:
    """Decide whether the rows of a fit are held in memory; otherwise the head reads them when it uses them.

    Those of a head that reads no features are not.

    Parameters
    ----------
    head : Head
    rows, values : int
        How many rows there are, and how many float32 values each has.
    memory : str or int, optional
        How much they may take; see `read_size`. Half of what is free, if absent.
    teacher : Head, optional
        One that is fitted on the same rows, to teach the head.
    more : bool
        Whether the fit also takes what must be in memory: extra pairs, or a soft bank.
    tell : callable
        Told where rows are read when they are used.

    Returns
    -------
    bool

    Raises
    ------
    UsageError
        If they take more than they may, and the head must have them in memory; or if what it needs in memory
        to read them when it uses them takes more.
    """
    needed = COPIES * rows * values * 4
    free = free_memory()
    most = read_size(memory) if memory is not None else None if free is None else int(SHARE * free)
    if not head.reads_features:
        return False
    if most is None or needed <= most or head.takes == "trunk":  # rows of a trunk are never held
        return True
    size = f"{rows:,} rows of {values:,} values take about {_told(needed)} of memory in a fit"
    heads = [head] if teacher is None else [head, teacher]
    if all(each.streams for each in heads) and not more:
        if (least := max(each.least_memory(rows) for each in heads)) > most:
            raise UsageError(
                f"head {head.name!r} needs at least {_told(least)} of memory for a fit of {rows:,} rows that "
                f"are read when they are used, but `memory` allows {_told(most)}: allow more, or name fewer "
                "rows by `only`",
                parameter="memory",
            )
        note(tell, f"{size}; `memory` allows {_told(most)}, so they are read when they are used")
        return False
    if memory is None and free is not None and needed <= free:
        return True
    beside = " with what is added to it" if more else " with its teacher" if teacher is not None else ""
    what = f"head {head.name!r}{beside}"
    there = f"`memory` allows {_told(most)}" if memory is not None else f"{_told(free or 0)} are free"
    raise UsageError(
        f"{size}, and {what} must hold them, but {there}: name fewer rows by `only`, or a head that reads "
        "rows when it uses them, such as ridge",
        parameter="memory",
    )


def _told(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
