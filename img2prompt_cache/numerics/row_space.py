"""Row space: an equivalent, smaller ridge problem where there are more features than rows.

The coefficients of ridge regression lie in the span of the centred rows, and rotating a block of columns by
an orthonormal matrix changes neither its penalty nor the predictions. So a block of p columns and n < p rows
can be fitted in n coordinates: the solution is the same, also on every fold, in O(n³) instead of O(p³).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


def reduce_blocks(X: F32, widths: Sequence[int]) -> tuple[F32, tuple[int, ...], list[F32 | None], F32]:
    """Express every block with more columns than rows in an orthonormal basis of its row space.

    Parameters
    ----------
    X : numpy.ndarray, float32, shape (n, p)
    widths : sequence of int
        Widths of the blocks, summing to p.

    Returns
    -------
    Z : numpy.ndarray, float32, shape (n, q)
        The new coordinates, q ≤ p. Blocks with at most n columns are only centred.
    widths : tuple of int
        Widths of the blocks of `Z`, summing to q.
    bases : list of (numpy.ndarray, float32, shape (width, new width)) or None
        For each block its orthonormal basis, in columns; None for a block that is only centred.
    mean : numpy.ndarray, float32, shape (p,)
        Column means of `X`, which are subtracted before `bases` apply. If no block has more columns than
        rows, they are zero and `Z` is `X`.
    """
    if len(X) >= max(widths):
        return X, tuple(widths), [None] * len(widths), np.zeros(X.shape[1], np.float32)
    mean = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    pieces: list[F32] = []
    bases: list[F32 | None] = []
    edges = np.cumsum([0, *widths])
    for left, right in pairwise(edges):
        centred = X[:, left:right] - mean[left:right]
        basis = None
        if centred.shape[1] > len(X):
            values, vectors = linalg.eigh(centred.astype(np.float64) @ centred.T)
            kept = values > values[-1] * 1e-10
            if kept.any() and values[-1] > 0:
                basis = (centred.T @ (vectors[:, kept] / np.sqrt(values[kept]))).astype(np.float32)
                centred = centred @ basis
        bases.append(basis)
        pieces.append(centred)
    return np.concatenate(pieces, axis=1), tuple(piece.shape[1] for piece in pieces), bases, mean


def expand_coefficients(rows: F32, widths: Sequence[int], bases: Sequence[F32 | None]) -> F32:
    """Convert coefficients of `Z` (q, t), one row for each coordinate, to coefficients of `X` (p, t)."""
    pieces = np.split(rows, np.cumsum(widths)[:-1])
    return np.concatenate(
        [piece if basis is None else basis @ piece for piece, basis in zip(pieces, bases, strict=True)]
    )
