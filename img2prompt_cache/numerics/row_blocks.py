"""Rows in blocks: of an array, or of what is indexed like one and read when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from img2prompt_cache.numerics import workers

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 16_384
"""Rows of a block: enough that products of matrices are fast."""
MOST_PARTS = 128
"""Parts that workers share the rows of a pass in, at most: each gives sums that may take 100 MB."""

Result = TypeVar("Result")


class Matrix(Protocol):
    """An array (n, p), or an object whose rows are selected as an array's are and read by `numpy.asarray`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that it is, or that reading gives."""

    def __len__(self) -> int:
        """Count the rows."""

    def __getitem__(self, index: Any, /) -> Any:
        """Select rows."""


def in_blocks(
    arrays: Sequence[Matrix], size: int = BLOCK
) -> Iterator[tuple[slice, tuple[NDArray[Any], ...]]]:
    """Iterate over rows in order; of what must be read, a thread reads the next block ahead.

    Parameters
    ----------
    arrays : sequence of numpy.ndarray, or of what is indexed like one, shapes (n, …)
    size : int
        Rows of a block; the last one may have fewer.

    Yields
    ------
    rows : slice
        Which they are.
    blocks : tuple of numpy.ndarray, shapes (size, …)
        Of an array, views.
    """
    n = len(arrays[0])
    if all(isinstance(each, np.ndarray) for each in arrays):
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            yield rows, tuple(each[rows] for each in arrays)
        return

    def read(start: int) -> tuple[NDArray[Any], ...]:
        return tuple(np.asarray(each[start : start + size]) for each in arrays)

    with ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(read, 0)
        for start in range(0, n, size):
            blocks, following = following.result(), ahead.submit(read, start + size)
            yield slice(start, min(start + size, n)), blocks


def over_rows(
    function: Callable[[slice], Result], matrices: Sequence[Matrix], size: int = BLOCK
) -> Iterator[Result]:
    """Compute a function of parts of the rows, by the workers where there are any and rows must be read.

    Parameters
    ----------
    function : callable
        Takes which rows to compute on; it is pickled for workers.
    matrices : sequence of numpy.ndarray, or of what is indexed like one, shapes (n, …)
        What it computes on.
    size : int
        Rows of a block. Parts are some blocks each, as many as n asks for: not the number of workers.

    Yields
    ------
    result
        In the order of the rows. Without workers, of all rows at once.
    """
    n = len(matrices[0])
    if not workers.are_there() or all(isinstance(each, np.ndarray) for each in matrices):
        yield function(slice(0, n))
        return
    rows = size * -(-n // (size * MOST_PARTS))
    yield from workers.share(function, [slice(start, min(start + rows, n)) for start in range(0, n, rows)])


def mean_of_rows(values: Matrix) -> NDArray[np.float64]:
    """Average rows, shape (1, t), block by block: rows held in memory and rows read give the same bits."""

    def total(part: slice) -> NDArray[np.float64]:
        found = np.zeros(values.shape[1])
        for _, (block,) in in_blocks([values[part]]):
            found += block.sum(axis=0, dtype=np.float64)
        return found

    mean: NDArray[np.float64] = reduce(np.add, over_rows(total, [values]))[None] / len(values)
    return mean
