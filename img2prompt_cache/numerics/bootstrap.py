"""Bootstrap confidence intervals of a mean, and of the difference of two means over the same rows.

Rows of one group are not independent observations, so whole groups are resampled with replacement: the
cluster bootstrap of C. A. Field and A. H. Welsh, "Bootstrapping clustered data", Journal of the Royal
Statistical Society B 69 (2007), 369-390. Intervals lie between percentiles of the resampled means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
FEW_GROUPS = 30
"""Below so many effective groups an interval is too narrow; `benchmarks/coverage.py` shows how much."""
BLOCK = 2**18
"""Groups drawn at a time; it bounds the memory, whatever the number of draws."""


def effective_groups(groups: NDArray[np.int64]) -> float:
    """Compute how many groups of equal size would tell as much: n² / Σ s², for groups of s rows.

    It is L. Kish's effective sample size ("Survey Sampling", 1965), with the sizes of the groups as weights:
    the number of groups where all are of one size, near 1 where one group has nearly all rows. An interval by
    bootstrap over few groups is too narrow; see `FEW_GROUPS`.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (n,)
        Group of each row.

    Returns
    -------
    float
        From 1 to the number of groups; 0 without rows.
    """
    size = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(size.sum() ** 2 / (size**2).sum()) if len(size) else 0.0


def resampled_means(values: F64, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0) -> F64:
    """Compute the mean of `values` for each of many resamples of the groups.

    A resample draws as many groups as there are, with replacement.

    Parameters
    ----------
    values : numpy.ndarray, float64, shape (n,)
    groups : numpy.ndarray, int64, shape (n,)
        Group of each row.
    draws : int
    seed : int
        The same seed draws the same groups, whatever the values are.

    Returns
    -------
    numpy.ndarray, float64, shape (draws,)
        Each is the mean over the rows of its resample. Resamples differ in their number of rows, because
        groups differ in size.
    """
    _, number, size = np.unique(groups, return_inverse=True, return_counts=True)
    total = np.bincount(number, values)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, BLOCK // len(size))
    for start in range(0, draws, step):
        drawn = rng.integers(len(size), size=(min(step, draws - start), len(size)))
        means[start : start + step] = total[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    return means


def standard_error(values: F64, groups: NDArray[np.int64]) -> float:
    """Compute the standard error of the mean of `values`, whose rows are independent between groups only.

    √(Σ_g (Σ_{i in g} (v_i − v̄))²) / n, the cluster-robust estimate for a mean (Liang & Zeger, 1986).
    """
    _, number = np.unique(groups, return_inverse=True)
    sums = np.bincount(number, values - values.mean())
    return float(np.sqrt(np.square(sums).sum()) / len(values))


def interval(
    values: F64, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> tuple[float, float] | None:
    """Compute a confidence interval of the mean of `values`, resampling groups.

    Parameters
    ----------
    values, groups, draws, seed
        See `resampled_means`.
    level : float
        Share of the resampled means inside the interval.

    Returns
    -------
    (low, high), or None if all rows are one group: how much groups differ is then unknown.
    """
    if len(np.unique(groups)) < 2:
        return None
    outside = (1 - level) / 2
    low, high = np.quantile(resampled_means(values, groups, draws, seed), [outside, 1 - outside])
    return float(low), float(high)


def paired_difference(
    one: F64, other: F64, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> tuple[float, tuple[float, float] | None]:
    """Compute the difference of two means over the same rows, and its confidence interval.

    Each resample uses the same groups for both means, so what makes rows hard for both cancels out.

    Parameters
    ----------
    one, other : numpy.ndarray, float64, shape (n,)
        The same rows in the same order.
    groups, draws, seed, level
        See `interval`.

    Returns
    -------
    difference : float
        Mean of `one` minus mean of `other`.
    (low, high), or None if all rows are one group
    """
    difference = one - other
    return float(difference.mean()), interval(difference, groups, draws, seed, level)
