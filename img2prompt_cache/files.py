"""Files and folders: written as a whole or not at all, flushed to disk, hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from img2prompt_cache.locks import lock, remove_leftovers, temporary_name

_NAME = 40
"""Characters of a file's name kept in its temporary name; a file system allows 255 bytes."""
_ATTEMPTS = 100


def user_folder() -> Path:
    """Return the user's folder: ``IMG2PROMPT_HOME``, else ``img2prompt-cache`` in the user's cache folder."""
    named = os.environ.get("IMG2PROMPT_HOME")
    if named:
        return Path(named).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "img2prompt-cache"


class Replacement:
    """A new file or folder made beside the one that it replaces, so that a path never holds half of one.

    It has a random hidden name in the same folder, ``.NAME.1c0d0f3a9c21.tmp``, that nobody else uses: it is
    made only if nothing of that name is there, so a link is never followed. `commit` flushes it to disk and
    renames it; of several writers, the last one's stays, whole. Used as a context manager, it is removed when
    the block ends without `commit`. A process that is killed leaves it behind; it is locked for as long as
    its process lives, and the next one that makes a replacement in the same folder removes what is not.
    What is committed may be read and written by whom the process's umask allows, whoever wrote it: some
    libraries make files that only their owner can read.

    Parameters
    ----------
    final : pathlib.Path
        What it replaces, or where there is nothing yet; its folder must exist.
    folder : bool
        Make a folder instead of a file.
    tidy : bool
        Remove what killed processes left in that folder; False where the caller has done so.

    Attributes
    ----------
    temporary : pathlib.Path
        The empty file or folder, to be filled.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, final: Path, *, folder: bool = False, tidy: bool = True) -> None:
        self.final = final
        with suppress(FileNotFoundError):
            final.lstat()  # a name that is too long is refused now, not when all is written
        if tidy:
            remove_leftovers(final.parent)
        self.temporary, self._lock = _make_temporary(final, folder=folder)
        self._mode = stat.S_IMODE(self.temporary.stat().st_mode) & 0o666  # of a new file, by the umask

    def flush(self) -> None:
        """Flush it to disk. `commit` does so, too; of several that belong together, flush all first."""
        sync(self.temporary)

    def commit(self) -> None:
        """Flush it to disk and rename it.

        A file is the old or the new one, whenever the process is killed or the power cut, and so is a folder
        where the system can exchange two names (Linux, on most file systems). Elsewhere, between two renames,
        the old folder lies beside its place as ``.NAME.old``: `restore` puts it back.

        Raises
        ------
        OSError
            If that cannot be done; the old one is kept.
        """
        allow(self.temporary, self._mode)
        self.flush()
        if self.temporary.is_dir():
            self._swap()
        else:
            self.temporary.replace(self.final)
        self._release()
        sync_folder(self.final.parent)

    def _swap(self) -> None:
        """Put a folder in the place of another one."""
        restore(self.final)
        if not os.path.lexists(self.final):
            self.temporary.rename(self.final)
            return
        if exchange(self.temporary, self.final):
            shutil.rmtree(self.temporary, ignore_errors=True)
            return
        old = _set_aside(self.final)
        held = _try_lock(self.final)  # whoever comes now sees that this process is alive
        try:
            self.final.rename(old)
            try:
                self.temporary.rename(self.final)
            except OSError:
                old.rename(self.final)
                raise
            shutil.rmtree(old, ignore_errors=True)
        finally:
            if held is not None:
                os.close(held)

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
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _make_temporary(final: Path, *, folder: bool) -> tuple[Path, int | None]:
    """Make an empty file or folder for `final`, and lock it where that can be done."""
    for _ in range(_ATTEMPTS):
        temporary = final.with_name(temporary_name(final.name[:_NAME]))
        if folder:
            temporary.mkdir()
        else:
            temporary.open("xb").close()
        try:
            # Shared, because HDF5 locks so what it reads, and this one may have its final name by then.
            return temporary, lock(temporary, shared=True)
        except (BlockingIOError, FileNotFoundError):
            continue  # taken for a leftover in the moment before it was locked
        except OSError:
            return temporary, None
    raise BlockingIOError(errno.EAGAIN, "temporary files are removed as soon as they are made")


def allow(path: Path, mode: int) -> None:
    """Give a file, or every file in a folder, at least these permissions; the umask has its say before."""
    if path.is_dir():
        for inner in path.iterdir():
            allow(inner, mode)
    elif mode & ~(now := stat.S_IMODE(path.stat().st_mode)):
        path.chmod(now | mode)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files or folders in one step, so that neither name is ever missing.

    Returns
    -------
    bool
        False, and nothing has changed, where the system or the file system cannot do it.

    Raises
    ------
    OSError
        If one is not there, or the folder is read-only.
    """
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2  # of Linux; the C library has it since 2018
    except (OSError, AttributeError, TypeError):
        return False
    here, exchanging = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    names = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    if renameat2(here, names[0], here, names[1], exchanging) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV):
        return False
    raise OSError(code, os.strerror(code), str(one))


def restore(final: Path) -> None:
    """Put a folder back that a process had set aside to replace it, and was killed before it did.

    What was set aside and has been replaced is removed; what a live process has set aside is left alone.
    Errors are passed over: the folder is then still missing, and whoever wants it says so.

    Parameters
    ----------
    final : pathlib.Path
        The folder, there or not.
    """
    old = _set_aside(final)
    try:
        if not stat.S_ISDIR(old.lstat().st_mode):
            return
        held: int | None = lock(old)
    except ValueError:
        return
    except (BlockingIOError, FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        held = None
    try:
        with suppress(OSError):
            if os.path.lexists(final) and any(final.iterdir()):
                shutil.rmtree(old, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    final.rmdir()
                old.rename(final)
    finally:
        if held is not None:
            os.close(held)


def restore_all(folder: Path) -> None:
    """Put back whatever was set aside in a folder, as `restore` does."""
    with suppress(OSError):
        for old in [*folder.glob(".*.old")]:
            final = old.with_name(old.name[1:].removesuffix(".old"))
            if _set_aside(final) == old:
                restore(final)


def _set_aside(final: Path) -> Path:
    return final.parent / f".{final.name}.old"


def _try_lock(path: Path) -> int | None:
    try:
        return lock(path)
    except OSError:
        return None


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
