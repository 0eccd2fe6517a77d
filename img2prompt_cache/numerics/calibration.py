"""How well expected values agree with true ones: their order, their level, and what a threshold keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

BINS = 10
THRESHOLDS = tuple(step / 10 for step in range(1, 10))


def rank_correlation(expected: F64, true: F64) -> float | None:
    """Compute Spearman's rank correlation; None where either is constant."""
    from scipy.stats import rankdata

    if np.ptp(expected) == 0 or np.ptp(true) == 0:
        return None
    return float(np.corrcoef(rankdata(expected), rankdata(true))[0, 1])


def calibration_error(expected: F64, true: F64, bins: int = BINS) -> float:
    """Compute the mean over bins of the distance between the mean expected and the mean true value.

    The expected calibration error of Naeini et al. (2015), for numbers in place of probabilities: the bins
    are quantiles of the expected values, so that each has as many rows, and each row counts the same. Equal
    expected values are in one bin.

    Parameters
    ----------
    expected, true : numpy.ndarray, float64, shape (n,)
        n ≥ 1.
    bins : int
    """
    edges = np.quantile(expected, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, expected, side="right")
    return float(np.abs(np.bincount(bin_of, expected - true)).sum() / len(expected))


def coverage(expected: F64, true: F64) -> list[dict[str, float]]:
    """Say what is left at each threshold: the share of rows expected to reach it, and their mean true value.

    Returns
    -------
    list of dict
        `min_expected`, `share` and `cosine`, for each of `THRESHOLDS` that any row is expected to reach.
    """
    kept = [(threshold, expected >= threshold) for threshold in THRESHOLDS]
    return [
        {"min_expected": threshold, "share": float(rows.mean()), "cosine": float(true[rows].mean())}
        for threshold, rows in kept
        if rows.any()
    ]
