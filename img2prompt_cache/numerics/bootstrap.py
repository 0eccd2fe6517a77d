"""Bootstrap confidence intervals of a mean, and of the difference of two means over the same rows.

Rows of one group are not independent observations, so whole groups are resampled with replacement: the
cluster bootstrap of C. A. Field and A. H. Welsh, "Bootstrapping clustered data", Journal of the Royal
Statistical Society B 69 (2007), 369-390. Intervals lie between percentiles of the resampled means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def connected_groups(splits: Sequence[tuple[Sequence[str], NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Number groups of rows anew, so that a row which several splits held out is in one group.

    Parameters
    ----------
    splits : sequence of (ids, groups)
        For each split, the names of its rows, and the group of each, int64 (n,). Groups of two splits need
        not have the same numbers; those that share a row become one.

    Returns
    -------
    numpy.ndarray, int64
        For the rows of all splits, one after the other.
    """
    if len(splits) == 1:
        return splits[0][1]
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row_of: dict[str, int] = {}
    rows = np.array([row_of.setdefault(name, len(row_of)) for ids, _ in splits for name in ids])
    groups, start = [], len(row_of)
    for _, each in splits:
        _, number = np.unique(each, return_inverse=True)
        groups.append(number + start)
        start += int(number.max()) + 1
    joined = coo_array((np.ones(len(rows), bool), (rows, np.concatenate(groups))), shape=(start, start))
    label: NDArray[np.int64] = connected_components(joined, directed=False)[1].astype(np.int64)
    found: NDArray[np.int64] = label[rows]
    return found


def standard_error(values: F64, groups: NDArray[np.int64]) -> float:
    """Compute the standard error of the mean of `values`, whose rows are independent between groups only.

    √(Σ_g (Σ_{i in g} (v_i − v̄))²) / n, the cluster-robust estimate for a mean (Liang & Zeger, 1986).
    """
    _, number = np.unique(groups, return_inverse=True)
    sums = np.bincount(number, values - values.mean())
    return float(np.sqrt(np.square(sums).sum()) / len(values))


def interval(
    values: F64,
    groups: NDArray[np.int64],
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    widening: float = 1.0,
) -> tuple[float, float] | None:
    """Compute a confidence interval of the mean of `values`, resampling groups.

    Parameters
    ----------
    values, groups, draws, seed
        See `resampled_means`.
    level : float
        Share of the resampled means inside the interval, before it is widened.
    widening : float
        Factor of the distance between the mean and either end of the interval; see `split_widening`.

    Returns
    -------
    (low, high), or None if all rows are one group: how much groups differ is then unknown.
    """
    if len(np.unique(groups)) < 2:
        return None
    outside = (1 - level) / 2
    low, high = np.quantile(resampled_means(values, groups, draws, seed), [outside, 1 - outside])
    if widening != 1:
        middle = values.mean()
        low, high = (middle + widening * (end - middle) for end in (low, high))
    return float(low), float(high)


def paired_difference(
    one: F64,
    other: F64,
    groups: NDArray[np.int64],
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    widening: float = 1.0,
) -> tuple[float, tuple[float, float] | None]:
    """Compute the difference of two means over the same rows, and its confidence interval.

    Each resample uses the same groups for both means, so what makes rows hard for both cancels out.

    Parameters
    ----------
    one, other : numpy.ndarray, float64, shape (n,)
        The same rows in the same order.
    groups, draws, seed, level, widening
        See `interval`.

    Returns
    -------
    difference : float
        Mean of `one` minus mean of `other`.
    (low, high), or None if all rows are one group
    """
    difference = one - other
    return float(difference.mean()), interval(difference, groups, draws, seed, level, widening)


def split_widening(fold: NDArray[np.int64], n: int, repeats: float = 1.0) -> float:
    """Compute how much wider an interval is that also covers heads fitted on other training rows.

    Resampling held-out rows takes the fitted heads as given. But the predictions by folds depend on each
    other: any two heads share most of their training rows, and each row that is scored helped to fit the
    heads that score all others. C. Nadeau and Y. Bengio ("Inference for the generalization error", Machine
    Learning 52, 2003) correct the variance of a mean over J test sets by replacing 1/J with 1/J +
    n_test/n_train. As a factor of the standard error over all rows that is √(1 + J·n_test/n_train): 1.5 for
    five folds, 1.12 for a hold-out of a fifth. `benchmarks/coverage.py` shows what it covers.

    Parameters
    ----------
    fold : numpy.ndarray, int64, shape (m,)
        Fold of each held-out row.
    n : int
        Number of all rows, those that are never held out included.
    repeats : float
        How often a row is held out, the mean over those that are. Folds of several splits have numbers of
        their own. Rows that are held out again tell nothing new of other rows, so the sum over all test sets
        counts as much as that over as many rows held out once.
    """
    tested = np.unique(fold, return_counts=True)[1]
    return float(np.sqrt(1 + (tested / (n - tested)).sum() / repeats))


def p_value(values: F64, groups: NDArray[np.int64], widening: float = 1.0) -> float | None:
    """Compute the two-sided p of a mean of 0, by the normal distribution of mean over standard error.

    Parameters
    ----------
    values : numpy.ndarray, float64, shape (n,)
    groups : numpy.ndarray, int64, shape (n,)
    widening : float
        Factor of the standard error; see `split_widening`.

    Returns
    -------
    float, or None if all rows are one group
    """
    if len(np.unique(groups)) < 2:
        return None
    error = widening * standard_error(values, groups)
    middle = abs(float(values.mean()))
    return math.erfc(middle / error / math.sqrt(2)) if error else float(middle == 0)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjust the p of several tests, so that the chance of any false one is bounded by S. Holm's procedure.

    "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).

    Parameters
    ----------
    p : sequence of float or None
        None is left out, and stays None.

    Returns
    -------
    list of float or None
        At least as high as before, at most 1.
    """
    known = sorted((value, place) for place, value in enumerate(p) if value is not None)
    found: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        found[place] = highest
    return found
