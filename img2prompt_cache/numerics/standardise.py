"""Standardisation of features: mean and standard deviation of each column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_and_scale(X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the mean and standard deviation of each column, float32 (p,); 1 for a constant column."""
    mean = X.mean(axis=0, dtype=np.float64)
    deviation = X.std(axis=0, dtype=np.float64)
    varies = deviation > np.maximum(1e-6 * np.abs(mean), 1e-12)
    return mean.astype(np.float32), np.where(varies, deviation, 1.0).astype(np.float32)
