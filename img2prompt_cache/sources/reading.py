"""Reading files whose names may come from an untrusted table.

A path is refused if it is absolute, contains ``..``, or leads out of the source through a link to a folder; a
link to an image is followed wherever it leads (see `scan`). Anything but a regular file is refused, because a
named pipe would block for ever; so are extremely large files.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from img2prompt_cache.errors import ImageError
from img2prompt_cache.shortage import passing
from img2prompt_cache.sources.names import is_below

MAX_IMAGE_BYTES = 256 << 20
MAX_TEXT_BYTES = 1 << 20

UNSAFE_PATH = r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|\x00"
"""Matches a path that is absolute or contains ``..``, in the syntax of both RE2 (pyarrow) and `re`."""


def read_regular(path: str | Path, limit: int = MAX_IMAGE_BYTES) -> bytes:
    """Read a whole regular file of at most `limit` bytes.

    Raises
    ------
    ImageError
        If it does not exist, is not a regular file, is too large, or cannot be read.
    OSError
        If this process has too many files open or too little memory, which is no fault of the file.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - before opening, because opening a named pipe blocks
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("cannot be read: not a regular file")
        if status.st_size > limit:
            raise ImageError(f"cannot be read: {status.st_size} bytes are more than the {limit} allowed")
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(limit)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and passing(error):
            raise
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_slice(path: Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a file at `offset`.

    Raises
    ------
    ImageError
        If the file is shorter, `size` is too large, or the file cannot be read.
    """
    if size > MAX_IMAGE_BYTES:
        raise ImageError(f"cannot be read: {size} bytes are more than the {MAX_IMAGE_BYTES} allowed")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and passing(error):
            raise
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) < size:
        raise ImageError(f"cannot be read: {path.name} ends before the image does")
    return data


def path_below(folder: Path, uri: str) -> Path:
    """Give the path of a file below `folder`; the file may be a link, but its folder must be below `folder`.

    Raises
    ------
    ImageError
        If the path leaves the folder.
    """
    if re.search(UNSAFE_PATH, uri):
        raise ImageError("cannot be read: the path leaves the source")
    path = folder / uri
    if not is_below(os.path.realpath(folder), os.path.realpath(path.parent) + os.sep):
        raise ImageError("cannot be read: the path leaves the source")
    return path


def read_below(folder: Path, uri: str) -> bytes:
    """Read a file below `folder`; the file may be a link, but its folder must be below `folder`.

    Raises
    ------
    ImageError
        If the path leaves the folder, or as `read_regular`.
    """
    return read_regular(path_below(folder, uri))
