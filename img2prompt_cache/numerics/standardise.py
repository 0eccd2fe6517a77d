"""Standardisation of features: mean and standard deviation of each column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.row_blocks import in_blocks, mean_of_rows, over_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.row_blocks import Matrix


def mean_and_scale(X: Matrix, widths: Sequence[int] = ()) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the mean and the scale of each column, float32 (p,).

    Parameters
    ----------
    X : numpy.ndarray, float32, shape (n, p), or what is indexed like one
        Read block by block, twice.
    widths : sequence of int, optional
        Widths of blocks, summing to p. The columns of a block whose width says ``standardise = False`` have
        one scale, the root of their mean variance. Every other column has its standard deviation; 1 if it is
        constant.
    """
    mean = mean_of_rows(X)[0]

    def squares(part: slice) -> NDArray[np.float64]:
        found = np.zeros(X.shape[1])
        for _, (block,) in in_blocks([X[part]]):
            found += np.square(block - mean).sum(axis=0)
        return found

    deviation = np.sqrt(reduce(np.add, over_rows(squares, [X])) / len(X))
    varies = deviation > np.maximum(1e-6 * np.abs(mean), 1e-12)
    stop = 0
    for width in widths:
        start, stop = stop, stop + width
        if not getattr(width, "standardise", True) and varies[start:stop].any():
            deviation[start:stop] = np.sqrt(np.mean(deviation[start:stop] ** 2))
            varies[start:stop] = True
    return mean.astype(np.float32), np.where(varies, deviation, 1.0).astype(np.float32)
