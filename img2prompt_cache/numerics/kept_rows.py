"""Rows that are made of other rows, kept in memory, or on disk where the others are not in memory either."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.numerics.disk_array import to_disk
from img2prompt_cache.numerics.row_blocks import in_blocks

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from img2prompt_cache.numerics.row_blocks import Matrix

ROWS = 1024
"""Rows that are made at a time."""


def kept_rows(
    make: Callable[..., NDArray[Any]],
    matrices: Sequence[Matrix],
    width: int,
    dtype: DTypeLike = np.float32,
    size: int = ROWS,
) -> NDArray[Any]:
    """Make rows of the same rows of matrices, block by block; where they are kept makes no other difference.

    Parameters
    ----------
    make : callable
        Takes a block of each matrix, and gives as many rows of `width` values.
    matrices : sequence of numpy.ndarray, or of what is indexed like one, shapes (n, …)
    width : int
    dtype : dtype
        What they are kept as.
    size : int
        Rows of a block.

    Returns
    -------
    numpy.ndarray, shape (n, width)
        Memory-mapped, and read-only, if one of the matrices is not in memory.

    Raises
    ------
    Img2PromptError
        If the disk has too little room.
    """
    held = all(isinstance(each, np.ndarray) for each in matrices)
    pieces = (make(*blocks) for _, blocks in in_blocks(matrices, size))
    return collect(pieces, len(matrices[0]), width, dtype, on_disk=not held)


def collect(
    pieces: Iterable[NDArray[Any]], n: int, width: int, dtype: DTypeLike = np.float32, *, on_disk: bool
) -> NDArray[Any]:
    """Put pieces of n rows below each other, in memory or on disk.

    Parameters
    ----------
    pieces : iterable of numpy.ndarray, shapes (m, width)
    n, width : int
    dtype : dtype
    on_disk : bool

    Raises
    ------
    Img2PromptError
        If the disk has too little room.
    """
    if on_disk:
        return to_disk(pieces, width, dtype)
    kept, start = np.empty((n, width), dtype), 0
    for piece in pieces:
        kept[start : start + len(piece)] = piece
        start += len(piece)
    return kept
