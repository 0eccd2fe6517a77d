"""A matrix that is written once, row by row, and kept in a temporary file instead of memory."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


def to_disk(pieces: Iterable[NDArray[Any]], width: int, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Write rows to a temporary file without a name and memory-map it; it disappears with the array.

    Parameters
    ----------
    pieces : iterable of numpy.ndarray, shape (m, width)
        Rows, in pieces; at least one row in total.
    width : int
    dtype : dtype
        What they are stored as.

    Returns
    -------
    numpy.ndarray, shape (n, width)
        Read-only.

    Raises
    ------
    Img2PromptError
        If the disk has too little room.
    """
    try:
        # Writing to the file, unlike assigning to a memory map, raises an error when the disk is full, where
        # the map would end the process with a signal.
        with tempfile.TemporaryFile() as file:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype).data)
            file.flush()
            flat = np.memmap(file, dtype, "r")
    except OSError as error:
        raise Img2PromptError(
            f"intermediate results cannot be kept in {tempfile.gettempdir()}: {error.strerror}; make room, "
            "or name another folder by TMPDIR"
        ) from error
    return flat.view(np.ndarray).reshape(-1, width)


def release(array: NDArray[Any]) -> None:
    """Give back the memory that a memory-mapped array takes where it was read; others stay as they are.

    What is read again is mapped again. Without this, the pages of a file that were read count as memory of
    this process for as long as the array lives.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
