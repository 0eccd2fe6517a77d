"""A matrix that is written once, row by row, and kept in a temporary file instead of memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary, finalize

import numpy as np

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

MOST_READ = 2**30
"""Bytes that are asked of a file at a time, at most: systems give 2 GiB or less."""
_FILES: WeakKeyDictionary[mmap.mmap, tuple[int, int]] = WeakKeyDictionary()
"""The file descriptor of each map, and where in the file the map starts."""


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
            rows = file.tell() // (width * np.dtype(dtype).itemsize)
            return map_array(file, dtype, (rows, width))
    except OSError as error:
        raise Img2PromptError(
            f"intermediate results cannot be kept in {tempfile.gettempdir()}: {error.strerror}; make room, "
            "or name another folder by TMPDIR"
        ) from error


def map_array(
    file: IO[bytes], dtype: DTypeLike, shape: tuple[int, ...], offset: int = 0, mode: Literal["r", "c"] = "r"
) -> NDArray[Any]:
    """Memory-map an array of a file; the file may be closed or removed afterwards.

    Parameters
    ----------
    file : file
        Open for reading.
    dtype : dtype
    shape : tuple of int
    offset : int
        Where in the file the array starts, in bytes.
    mode : str
        ``"r"`` for an array that is read-only, ``"c"`` for one whose changes stay in memory.
    """
    array = np.memmap(file, dtype, mode, offset, shape).view(np.ndarray)
    base = _map_of(array)
    if base is not None:
        number = os.dup(file.fileno())
        finalize(base, os.close, number)
        _FILES[base] = number, offset - _address(array) + _address(np.frombuffer(base, np.uint8))
    return array


def take_rows(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Select rows of a matrix: the same as ``array[rows]``, but those of a mapped file are read from it.

    A page of the file that is touched through the map counts as memory of this process, with up to two
    megabytes around it. Changes of a map that stay in memory are not seen.

    Parameters
    ----------
    array : numpy.ndarray, shape (n, p)
    rows : numpy.ndarray, int64, shape (m,)
        In 0…n−1, or −1 for any row.

    Raises
    ------
    Img2PromptError
        If the file was cut meanwhile.
    """
    base = _map_of(array)
    readable = base is not None and base in _FILES and hasattr(os, "preadv") and array.flags.c_contiguous
    if base is None or not readable or not len(rows):
        return array[rows]
    number, start = _FILES[base]
    start += _address(array) - _address(np.frombuffer(base, np.uint8))
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    width = found.nbytes // len(rows)
    places = found.reshape(-1).view(np.uint8).data
    rows = np.maximum(rows, 0)
    # Rows that follow each other in the file are read in one go.
    limits = np.arange(0, len(rows), max(1, MOST_READ // width))
    firsts = np.union1d(limits, np.flatnonzero(np.diff(rows) != 1) + 1)
    read = sum(
        os.preadv(number, [places[first * width : stop * width]], start + row * width)
        for first, stop, row in zip(
            firsts.tolist(), [*firsts[1:].tolist(), len(rows)], rows[firsts].tolist(), strict=True
        )
    )
    if read != found.nbytes:
        raise Img2PromptError("a file was cut while its rows were read")
    return found


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array lies in a file that is memory-mapped."""
    return _map_of(array) is not None


def release(array: NDArray[Any]) -> None:
    """Give back the memory that a memory-mapped array takes where it was read; others stay as they are.

    What is read again is mapped again. Without this, the pages of a file that were read count as memory of
    this process for as long as the array lives.
    """
    base = _map_of(array)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _map_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Give the memory map that an array lies in; None where it does not lie in one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
