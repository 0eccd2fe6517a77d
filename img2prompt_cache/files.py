"""Files and folders: written as a whole or not at all, hashed, locked, and tidied up after a crash."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

STALE_SECONDS = 86_400.0
"""Age up to which a leftover is never removed: its maker may still be running."""

_NAME = 40
"""Characters of a file's name kept in its temporary name; a file system allows 255 bytes."""


class Replacement:
    """A new file or folder made beside the one that it replaces, so that a path never holds half of one.

    It has a random hidden name in the same folder, ``.NAME.0f3a9c21.tmp``, that nobody else uses: it is made
    only if nothing of that name is there, so a link is never followed. `commit` flushes it to disk and
    renames it. Used as a context manager, it is removed when the block ends without `commit`. A process that
    is killed leaves it behind; whatever ends in ``.tmp`` may be deleted once nobody writes there.

    Parameters
    ----------
    final : pathlib.Path
        What it replaces, or where there is nothing yet; its folder must exist.
    folder : bool
        Make a folder instead of a file.

    Attributes
    ----------
    temporary : pathlib.Path
        The empty file or folder, to be filled.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, final: Path, *, folder: bool = False) -> None:
        self.final = final
        with suppress(FileNotFoundError):
            final.lstat()  # a name that is too long is refused now, not when all is written
        self.temporary = final.with_name(f".{final.name[:_NAME]}.{secrets.token_hex(4)}.tmp")
        if folder:
            self.temporary.mkdir()
        else:
            self.temporary.open("xb").close()

    def flush(self) -> None:
        """Flush it to disk. `commit` does so, too; of several that belong together, flush all first."""
        sync(self.temporary)

    def commit(self) -> None:
        """Flush it to disk and rename it.

        A file is the old or the new one, whenever the process is killed or the power cut. A folder that is
        not empty cannot be replaced in one step: in the moment between the two, the old one lies beside its
        place, under the temporary name with ``.old`` for ``.tmp``.

        Raises
        ------
        OSError
            If that cannot be done; the old one is kept.
        """
        self.flush()
        if self.temporary.is_dir():
            self._swap()
        else:
            self.temporary.replace(self.final)
        sync_folder(self.final.parent)

    def _swap(self) -> None:
        """Put a folder in the place of another one."""
        old = self.temporary.with_suffix(".old")
        try:
            if self.final.exists():
                self.final.rename(old)
            self.temporary.rename(self.final)
        finally:
            if old.exists() and not self.final.exists():
                old.rename(self.final)
            shutil.rmtree(old, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove it, unless it was committed."""
        if self.temporary.is_dir():
            shutil.rmtree(self.temporary, ignore_errors=True)
        else:
            self.temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a small file as a whole: afterwards it holds the old bytes or the new ones, never a mixture.

    Raises
    ------
    OSError
        If it cannot be written; the old file is kept.
    """
    with Replacement(path) as new:
        new.temporary.write_bytes(data)
        new.commit()


def sync(path: Path) -> None:
    """Flush a file to disk, or a folder with all files in it."""
    if path.is_dir():
        for inner in path.iterdir():
            sync(inner)
        sync_folder(path)
    else:
        with path.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut. A no-op where not supported."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Hash a file's bytes with SHA-256: 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_folder(folder: Path) -> int:
    """Lock a folder itself, with a lock of the operating system that ends with its process.

    It leaves nothing in the folder, so an empty one stays empty. Windows has no such locks, nor has every
    network drive.

    Returns
    -------
    int
        A file descriptor: the folder is locked until it is given to `os.close`, or the process ends.

    Raises
    ------
    BlockingIOError
        If it is locked already, or another folder has taken its place meanwhile.
    OSError
        If it is no folder, or folders cannot be locked here.
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
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder of one's own while the block runs, where folders can be locked."""
    try:
        lock = lock_folder(folder)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.close(lock)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove folders that a killed process left in another one.

    Only those that are older than `STALE_SECONDS` and that nobody has locked; none at all where folders
    cannot be locked.

    Parameters
    ----------
    folder : pathlib.Path
        Where to look.
    pattern : str
        Names of such folders, as `Path.glob` takes them.
    """
    for left in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > STALE_SECONDS:
                lock = lock_folder(left)
                try:
                    shutil.rmtree(left, ignore_errors=True)
                finally:
                    os.close(lock)
