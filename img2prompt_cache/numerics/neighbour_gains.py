"""Gains of blocks for nearest neighbours: how much the cosine of each block counts.

The similarity of two rows is Σ g cos / Σ g, summed over blocks. The gains g are learned with a smooth form of
k nearest neighbours, kernel regression (Nadaraya, 1964; Watson, 1964): a row is predicted as the mean target
of the rows of other groups, weighted by softmax(Σ g cos). The sum of the gains says how many neighbours
count; their ratios are what k nearest neighbours take over. Neighbourhood components analysis (Goldberger et
al., 2005) learns a metric for classification in the same way. In shapes, b is the number of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize

from img2prompt_cache.numerics.kernel_ridge import SCALE, weigh_cosines
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]
    Floats = NDArray[Any]
    Ints = NDArray[np.int64]

BOUNDS = (0.01, 200.0)
"""Range of each gain."""
START = 16.0
"""Sum of the gains from which the search starts; on real images it ends between 13 and 18."""
ITERATIONS = 12
"""Steps of the search: more of them fit 23 gains to 900 rows a little too closely."""


def learn_gains(units: F32, y: Floats, groups: Ints, widths: Sequence[int] | Ints) -> F64:
    """Choose the gains by the mean cosine of rows predicted from other groups, with L-BFGS-B.

    Parameters
    ----------
    units : numpy.ndarray, float32, shape (n, p)
        Each block of each row of length 1, from `kernel_ridge.normalise_blocks`.
    y : numpy.ndarray, float32 or float64, shape (n, t)
        Unit-norm targets. Their precision is that of the search.
    groups : numpy.ndarray, int64, shape (n,)
        No row of a row's own group takes part in predicting it.
    widths : sequence of int
        Number of columns of each of the b blocks.

    Returns
    -------
    numpy.ndarray, float64, shape (b,)
        With a mean of 1. All 1 where there is one block, or one group.
    """
    blocks = len(widths)
    if blocks == 1 or (groups == groups[0]).all():
        return np.ones(blocks)
    parts = np.split(units, np.cumsum(widths)[:-1], axis=1)
    cosines = [(part @ part.T).astype(y.dtype, copy=False) for part in parts]

    def loss(log: F64) -> tuple[float, F64]:
        gains = np.exp(log)
        score, slope = left_out_cosine(cosines, y, groups, gains)
        return -SCALE * score, -SCALE * gains * slope

    with stage("gain of each block", ITERATIONS, "at most") as advance:
        found = optimize.minimize(
            loss,
            np.full(blocks, np.log(START / blocks)),
            jac=True,
            method="L-BFGS-B",
            bounds=[(np.log(BOUNDS[0]), np.log(BOUNDS[1]))] * blocks,
            options={"maxiter": ITERATIONS, "ftol": 1e-6},
            callback=lambda point: advance(1),
        )
    gains = np.exp(found.x)
    result: F64 = gains / gains.mean()
    return result


def left_out_cosine(cosines: Sequence[Floats], y: Floats, groups: Ints, gains: F64) -> tuple[float, F64]:
    """Compute the mean cosine of rows predicted from the rows of other groups, and its exact gradient.

    With p_i = Σ_j a_ij y_j, a = softmax(Σ_b g_b cos_b) and u_i the gradient of row i's cosine by p_i, the
    gradient by g_b is Σ_ij a_ij (u_i · y_j) cos_b,ij: what softmax subtracts, u_i · p_i, is 0, because a
    cosine does not depend on the length of p_i.

    Parameters
    ----------
    cosines : sequence of numpy.ndarray, float32 or float64, shape (n, n)
        For each block, the cosines between all rows.
    y : numpy.ndarray, same dtype, shape (n, t)
        Unit-norm targets.
    groups : numpy.ndarray, int64, shape (n,)
        At least two.
    gains : numpy.ndarray, float64, shape (b,)

    Returns
    -------
    score : float
    by_gain : numpy.ndarray, float64, shape (b,)
    """
    weights = weigh_cosines(cosines, gains)
    weights[groups[:, None] == groups] = -np.inf
    weights -= weights.max(axis=1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=1, keepdims=True)
    pred = weights @ y
    length = np.maximum(np.sqrt(np.einsum("ij,ij->i", pred, pred)), 1e-12)[:, None]
    pred /= length
    cosine = np.einsum("ij,ij->i", pred, y)[:, None]
    weights *= ((y - cosine * pred) / (length * len(y))) @ y.T
    by_gain = np.array([np.vdot(weights, each) for each in cosines], np.float64)
    return float(cosine.mean(dtype=np.float64)), by_gain


def weigh_blocks(units: F32, widths: Sequence[int] | Ints, gains: F64) -> F32:
    """Scale unit blocks so that the inner product of two rows is their similarity.

    Each block is divided by √(Σg / g_b). With equal gains that is √b to the last bit, whatever the gains are.

    Parameters
    ----------
    units : numpy.ndarray, float32, shape (n, p)
    widths : sequence of int
        Number of columns of each of the b blocks.
    gains : numpy.ndarray, float64, shape (b,)
        Above 0.

    Returns
    -------
    numpy.ndarray, float32, shape (n, p)
        Rows of length 1, but for blocks that are zero.
    """
    divisors = np.sqrt(gains.sum() / gains).astype(np.float32)
    weighed: F32 = units / np.repeat(divisors, widths)
    return weighed
