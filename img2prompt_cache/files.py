"""Holds: locks of the system on a folder itself, let go of by the kernel when their holder dies.

They leave nothing in the folder, so that an empty one stays empty. Windows has no such locks, nor has every
network drive; there nothing is ever taken for left behind.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE_SECONDS = 86_400.0
"""What is younger is never taken for left behind."""


def hold(folder: Path) -> int:
    """Lock a folder.

    Returns
    -------
    int
        Holds it until it is given to `os.close`, or the process ends.

    Raises
    ------
    BlockingIOError
        If it is held already, or another folder has taken its place meanwhile.
    OSError
        If it is no folder, or folders cannot be held here.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOTSUP, "folders cannot be locked here") from None
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), folder.stat()):
            raise BlockingIOError(errno.EAGAIN, "another folder has taken its place")
    except OSError:
        os.close(lock)
        raise
    return lock


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold a folder of one's own while the block runs, where folders can be held."""
    try:
        lock = hold(folder)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.close(lock)


def sweep(folder: Path, pattern: str) -> None:
    """Remove the folders of a pattern that a killed process left in another one a day ago or longer."""
    for left in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > STALE_SECONDS:
                lock = hold(left)
                try:
                    shutil.rmtree(left, ignore_errors=True)
                finally:
                    os.close(lock)
