"""Standardisation of features: mean and standard deviation of each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_and_scale(
    X: NDArray[np.float32], widths: Sequence[int] = ()
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the mean and the scale of each column, float32 (p,).

    Parameters
    ----------
    X : numpy.ndarray, float32, shape (n, p)
    widths : sequence of int, optional
        Widths of blocks, summing to p. The columns of a block whose width says ``standardise = False`` have
        one scale, the root of their mean variance. Every other column has its standard deviation; 1 if it is
        constant.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    deviation = X.std(axis=0, dtype=np.float64)
    varies = deviation > np.maximum(1e-6 * np.abs(mean), 1e-12)
    stop = 0
    for width in widths:
        start, stop = stop, stop + width
        if not getattr(width, "standardise", True) and varies[start:stop].any():
            deviation[start:stop] = np.sqrt(np.mean(deviation[start:stop] ** 2))
            varies[start:stop] = True
    return mean.astype(np.float32), np.where(varies, deviation, 1.0).astype(np.float32)
