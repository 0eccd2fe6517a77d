"""Banded ridge: a penalty for each backbone, found from the Gram matrices alone.

The mean squared error on the folds is a smooth function of the logarithms of the penalties (Dupré la Tour et
al., 2022, NeuroImage, who search it at random or by its gradient). With one more solve its gradient is exact,
so a handful of evaluations finds the valley however many backbones there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, optimize

from img2prompt_cache.numerics.gram import factor
from img2prompt_cache.numerics.ridge_path import DECADES

if TYPE_CHECKING:
    from img2prompt_cache.numerics.gram import F64, Sums

START = -2.5
"""Penalty per row the search starts from, as a power of ten."""


def fold_error(by_fold: Sequence[Sums], scale: F64, alpha: F64) -> tuple[float, F64]:
    """Mean squared error on the rows each fold left out, and its gradient.

    With W the solution on the other folds and G, H the moments of the rows left out about the training
    means, the error is s − 2⟨W, H⟩ + ⟨W, GW⟩, and its derivative by the penalty of a column
    −2⟨(A⁻¹(GW − H))ᵢ, Wᵢ⟩,
    where A is the penalised Gram matrix.

    Parameters
    ----------
    by_fold : sequence of Sums
    scale, alpha : numpy.ndarray, float64, shape (p,)
        Scale and penalty of each column.

    Returns
    -------
    error : float
        Mean over folds.
    gradient : numpy.ndarray, float64, shape (p,)
    """
    total = reduce(add, by_fold)
    error, gradient = 0.0, np.zeros(len(scale))
    for held in by_fold:
        train = total - held
        gram, cross, _ = train.about(train, scale)
        penalised = factor(gram, alpha)
        coef = linalg.cho_solve(penalised, cross, check_finite=False)
        gram, cross, square = held.about(train, scale)
        product = gram @ coef
        share = 1.0 / (held.n * coef.shape[1] * len(by_fold))
        error += share * (square - 2 * np.vdot(coef, cross) + np.vdot(coef, product))
        back = linalg.cho_solve(penalised, product - cross, overwrite_b=True, check_finite=False)
        gradient -= 2 * share * np.einsum("ij,ij->i", back, coef)
    return float(error), gradient


def ratios(by_fold: Sequence[Sums], scale: F64, blocks: Sequence[int]) -> F64:
    """Find how the penalties of the blocks should relate for the least squared error on the folds.

    Parameters
    ----------
    by_fold : sequence of Sums
    scale : numpy.ndarray, float64, shape (p,)
        From `gram.block_scale`.
    blocks : sequence of int

    Returns
    -------
    numpy.ndarray, float64, shape (len(blocks),)
        Of geometric mean 1; ones for a single block.
    """
    if len(blocks) == 1:
        return np.ones(1)
    of_column = np.repeat(np.arange(len(blocks)), blocks)
    n = sum(sums.n for sums in by_fold)
    start = fold_error(by_fold, scale, np.full(len(scale), n * 10**START))[0] or 1.0

    def error(log: F64) -> tuple[float, F64]:
        alpha = np.exp(log)
        value, gradient = fold_error(by_fold, scale, alpha[of_column])
        return value / start, np.bincount(of_column, gradient) * alpha / start

    low, high = (np.log(n * 10.0**decade) for decade in DECADES)
    found = optimize.minimize(
        error,
        np.full(len(blocks), np.log(n * 10**START)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high)] * len(blocks),
        options={"maxiter": 10, "ftol": 1e-5},
    )
    relative: F64 = np.exp(found.x - found.x.mean())
    return relative
