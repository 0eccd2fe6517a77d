"""Nearest rows of queries, searched block by block, so that memory does not grow with queries times rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

BLOCK = 4096
"""Rows that are read at a time, at most."""
PRODUCTS = 1 << 22
"""Products of queries and rows that are held at a time, at most, while there are fewer queries than that."""


def nearest_rows(
    queries: F32,
    fold: Rows,
    rows: Rows,
    row_fold: Rows,
    read: Callable[[Rows], F32],
    k: int,
    left_out: NDArray[np.bool_] | None = None,
) -> tuple[Rows, F32]:
    """Find the k rows with the highest inner product for each query, among those of other folds.

    Parameters
    ----------
    queries : numpy.ndarray, float32, shape (q, d)
    fold : numpy.ndarray, int64, shape (q,)
        Rows of the same fold are passed over.
    rows, row_fold : numpy.ndarray, int64, shape (n,)
        Rows to search, and the fold of each.
    read : callable
        Takes some of `rows` and gives their vectors, float32 (m, d).
    k : int
    left_out : numpy.ndarray, bool, shape (folds, n), optional
        Which of the rows each fold passes over beside its own.

    Returns
    -------
    rows : numpy.ndarray, int64, shape (q, k)
        Best first; −1 where there are fewer.
    products : numpy.ndarray, float32, shape (q, k)
        −inf where there are fewer.
    """
    found = np.full((len(queries), k), -1, np.int64)
    best = np.full((len(queries), k), -np.inf, np.float32)
    for block in _blocks(len(queries), len(rows)):
        part = rows[block]
        products = queries @ read(part).T
        products[_passed_over(fold, row_fold, block, left_out)] = -np.inf
        joined = np.concatenate([best, products], axis=1)
        names = np.concatenate([found, np.broadcast_to(part, products.shape)], axis=1)
        # A stable order, so that of equal ones the first row comes first.
        order = np.argsort(-joined, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(joined, order, axis=1)
        found = np.where(np.isneginf(best), -1, np.take_along_axis(names, order, axis=1))
    return found, best


def count_near(
    queries: F32,
    fold: Rows,
    rows: Rows,
    row_fold: Rows,
    read: Callable[[Rows], F32],
    threshold: float,
    left_out: NDArray[np.bool_] | None = None,
) -> Rows:
    """Count for each query the rows whose inner product is at least `threshold`; see `nearest_rows`."""
    counts = np.zeros(len(queries), np.int64)
    for block in _blocks(len(queries), len(rows)):
        products = queries @ read(rows[block]).T
        counts += ((products >= threshold) & ~_passed_over(fold, row_fold, block, left_out)).sum(axis=1)
    return counts


def _passed_over(
    fold: Rows, row_fold: Rows, block: slice, left_out: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Tell for queries and a block of rows which pairs do not count."""
    own: NDArray[np.bool_] = fold[:, None] == row_fold[None, block]
    return own if left_out is None else own | left_out[:, block][fold]


def _blocks(queries: int, rows: int) -> Iterator[slice]:
    """Divide rows into blocks; the more queries, the shorter."""
    step = max(1, min(BLOCK, PRODUCTS // max(1, queries)))
    for start in range(0, rows, step):
        yield slice(start, start + step)
