"""Intervals of a mean by bootstrap over groups, and of the difference of two means over the same rows.

Rows of one group are no independent observations, so whole groups are drawn again, with replacement: the
cluster bootstrap of C. A. Field and A. H. Welsh, "Bootstrapping clustered data", Journal of the Royal
Statistical Society B 69 (2007), 369-390. Intervals are those between percentiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
BLOCK = 2**18
"""Groups drawn at a time, so that memory does not grow with the number of draws."""


def resampled_means(values: F64, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0) -> F64:
    """Means of `values` over rows of groups that are drawn again, as many groups as there are.

    Parameters
    ----------
    values : numpy.ndarray, float64, shape (n,)
    groups : numpy.ndarray, int64, shape (n,)
        Group of each row.
    draws : int
    seed : int
        The same seed draws the same groups, whatever the values.

    Returns
    -------
    numpy.ndarray, float64, shape (draws,)
        A draw in which large groups come often has more rows; each is the mean over its own.
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


def interval(
    values: F64, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> tuple[float, float] | None:
    """Interval of the mean of `values`, groups being drawn again.

    Parameters
    ----------
    values, groups, draws, seed
        See `resampled_means`.
    level : float
        Share of the resampled means inside.

    Returns
    -------
    (low, high), or None where all rows are one group: nothing is known then of how groups differ.
    """
    if len(np.unique(groups)) < 2:
        return None
    outside = (1 - level) / 2
    low, high = np.quantile(resampled_means(values, groups, draws, seed), [outside, 1 - outside])
    return float(low), float(high)


def paired(
    one: F64, other: F64, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> tuple[float, tuple[float, float] | None]:
    """Difference of two means over the same rows, and its interval.

    Both means are taken over the same groups in each draw, so what makes rows hard for both falls out.

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
    (low, high), or None where all rows are one group
    """
    difference = one - other
    return float(difference.mean()), interval(difference, groups, draws, seed, level)
