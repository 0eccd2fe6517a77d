"""Locks of the operating system, which end with their process; and files that nobody holds any more."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

STALE_SECONDS = 86_400.0
"""Age from which a leftover counts as abandoned where no lock can tell."""

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]
_TEMPORARY = re.compile(r"\..+\.(?P<host>[0-9a-f]{4})[0-9a-f]{8}\.tmp", re.DOTALL)


def temporary_name(name: str) -> str:
    """Make up a hidden name for what is to be renamed to `name`: ``.NAME.1c0d0f3a9c21.tmp``.

    The first four of the twelve digits tell machines apart, since a lock of another one may not be seen here;
    the others are random.
    """
    return f".{name}.{_HOST}{secrets.token_hex(4)}.tmp"


def lock(path: Path, *, shared: bool = False) -> int:
    """Lock a file or folder itself; nothing is left in the folder, so an empty one stays empty.

    Windows has no such locks, nor has every network drive.

    Parameters
    ----------
    path : pathlib.Path
        No link.
    shared : bool
        Others may lock it so, too, but not for themselves alone.

    Returns
    -------
    int
        A file descriptor: it is locked until this is given to `os.close`, or the process ends.

    Raises
    ------
    BlockingIOError
        If it is locked already, or another one has taken its place meanwhile.
    OSError
        If it is not there, or cannot be locked here.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOTSUP, "files cannot be locked here") from None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.lstat()):
            raise BlockingIOError(errno.EAGAIN, "another one has taken its place")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lock_folder(folder: Path) -> int:
    """Lock a folder for oneself alone, as `lock` does; refuse what is no folder."""
    descriptor = lock(folder)
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return descriptor


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written in a folder, under names of `temporary_name`.

    Whoever writes one of these holds a lock on it, so what can be locked is nobody's. Where no lock can tell
    (another machine made it, or the file system has none), it is removed once it is older than
    `STALE_SECONDS`. Errors are passed over.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.name.endswith(".tmp")]
        for name in found:
            match = _TEMPORARY.fullmatch(name)
            if match:
                with suppress(OSError):
                    _remove_abandoned(folder / name, here=match["host"] == _HOST)


def remove_old_folders(folder: Path, pattern: str) -> None:
    """Remove folders of other names, as `Path.glob` takes them, that are older than `STALE_SECONDS`."""
    for left in folder.glob(pattern):
        with suppress(OSError):
            if stat.S_ISDIR(left.lstat().st_mode):
                _remove_abandoned(left, here=False)


def _remove_abandoned(path: Path, *, here: bool) -> None:
    status = path.lstat()
    is_folder = stat.S_ISDIR(status.st_mode)
    if not is_folder and not stat.S_ISREG(status.st_mode):
        return
    old = time.time() - status.st_mtime > STALE_SECONDS
    if not (old or here):
        return
    try:
        held: int | None = lock(path)
    except (BlockingIOError, FileNotFoundError):
        return
    except OSError:
        if not old:
            return
        held = None
    try:
        if is_folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # SQLite's
    finally:
        if held is not None:
            os.close(held)
