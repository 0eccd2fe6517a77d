"""Shortages: which resource of the machine an error comes from the lack of, and what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FILES = (errno.EMFILE, errno.ENFILE)

_TEXTS = {
    # HDF5 and the dynamic linker have the cause in their text only.
    "disk": ("errno = 28", "errno = 122", "No space left on device", "Disk quota exceeded"),
    "files": ("errno = 24", "errno = 23", "Too many open files"),
    "threads": ("can't start new thread", "pthread_create", "Resource temporarily unavailable"),
    "memory": (
        *("errno = 12", "Cannot allocate memory", "can't allocate memory", "failed to map segment"),
        *("bad_alloc", "out of memory", "Unable to allocate", "malloc of size"),
    ),
}

_LIMITED = ("could not create a primitive", "without exception set", "without setting an exception")
"""What PyTorch and Python say of many things, and of too little address space where that is limited."""


def shortage(error: BaseException) -> str:
    """Say in one line what the machine or a limit is short of.

    Parameters
    ----------
    error : BaseException
        The errors that it was raised from are looked at, too.

    Returns
    -------
    str
        Empty if the error has another cause.
    """
    for each in _chain(error):
        kind = _kind(each)
        if kind:
            filename = getattr(each, "filename", None)
            return _told(kind, f" ({filename})" if filename else "")
    return ""


def passing(error: OSError) -> bool:
    """Check whether a file could not be opened for want of a resource, which is not the file's fault."""
    return error.errno in (*FILES, errno.ENOMEM)


def memory_is_short(size: int) -> bool:
    """Check whether so many bytes cannot be reserved; none of them is touched."""
    try:
        bytearray(size)
    except MemoryError:
        return True
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in DISK:
        return "disk"
    if number in FILES:
        return "files"
    if number == errno.ENOMEM or isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError | SystemError) and any(text in str(error) for text in _LIMITED):
        return "" if limit_of("AS") is None else "memory"
    # Safetensors has an exception of its own, derived from Exception alone; it is not imported for its name.
    known = isinstance(error, OSError | RuntimeError | ImportError)
    if not known and type(error).__name__ != "SafetensorError":
        return ""
    return next((kind for kind, texts in _TEXTS.items() if any(text in str(error) for text in texts)), "")


def _told(kind: str, where: str) -> str:
    if kind == "disk":
        return f"the disk is full{where}; make room and run the same command again"
    if kind == "files":
        return f"too many open files{where}: {_limit('NOFILE', 'ulimit -n', 'files')}"
    if kind == "threads":
        return f"no more threads or processes can be started: {_limit('NPROC', 'ulimit -u', 'processes')}"
    limited = limit_of("AS")
    if limited is not None:
        return (
            f"out of memory: address space is limited to {limited >> 20:,} MiB (`ulimit -v`), and PyTorch "
            "with its models takes 3 to 7 GiB of it; raise the limit"
        )
    return "out of memory; fewer rows, features or hidden units need less"


def limit_of(name: str) -> int | None:
    """Give a limit of this process (`AS`, `NOFILE`, `NPROC`); None if there is none."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    soft = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _limit(name: str, command: str, what: str) -> str:
    soft = limit_of(name)
    at = f"the limit is {soft:,} {what} (`{command}`); " if soft is not None else ""
    return f"{at}raise it, or end other programs, and run the same command again"
