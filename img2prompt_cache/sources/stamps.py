"""Size and time of last change of files, which tell at little cost whether a file can be another one now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = -1
"""In the place of both numbers, if they are not known."""


def stamp_files(folder: Path, names: Iterable[str]) -> NDArray[np.int64]:
    """Look up the size and the time of last change of files; links are followed.

    Parameters
    ----------
    folder : pathlib.Path
    names : iterable of str, length n
        Paths relative to it.

    Returns
    -------
    numpy.ndarray, int64, shape (n, 2)
        Bytes, and nanoseconds since 1970; `UNKNOWN` for a file that is not there.
    """
    found: list[tuple[int, int]] = []
    try:
        # The system finds a short path below an open folder faster than a long one.
        home = os.open(folder, os.O_RDONLY) if os.stat in os.supports_dir_fd else None
    except OSError:
        home = None
    prefix = "" if home is not None else f"{folder}{os.sep}"
    try:
        for name in names:
            try:
                status = os.stat(prefix + name, dir_fd=home)
            except (OSError, ValueError):
                found.append((UNKNOWN, UNKNOWN))
            else:
                found.append((status.st_size, status.st_mtime_ns))
    finally:
        if home is not None:
            os.close(home)
    return np.array(found, np.int64).reshape(-1, 2)
