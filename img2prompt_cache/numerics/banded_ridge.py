"""Banded ridge regression: one penalty for each backbone, chosen by cross-validation on Gram matrices.

The cross-validated squared error is a smooth function of the logarithms of the penalties (Dupré la Tour et
al., 2022, NeuroImage, who minimise it by random search or gradient descent). One more linear solve gives its
exact gradient, so L-BFGS-B needs only a few evaluations, however many backbones there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, optimize

from img2prompt_cache.numerics.gram import cholesky
from img2prompt_cache.numerics.ridge_path import DECADES
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from img2prompt_cache.numerics.gram import F64, Sums

ITERATIONS = 10
"""Most iterations of the search."""
START = -2.5
"""Penalty per row from which the search starts, as a power of ten."""


def cross_validation_error(by_fold: Sequence[Sums], scale: F64, alpha: F64) -> tuple[float, F64]:
    """Compute the cross-validated mean squared error and its gradient with respect to the penalties.

    Let W be the solution on the training folds, A their Gram matrix with the penalties on its diagonal, and
    G, H and s the second moments (x'x, x'y, y'y) of the held-out rows about the training means. The error is
    s − 2⟨W, H⟩ + ⟨W, GW⟩, and its derivative with respect to the penalty of column i is
    −2⟨(A⁻¹(GW − H))ᵢ, Wᵢ⟩.

    Parameters
    ----------
    by_fold : sequence of Sums
    scale, alpha : numpy.ndarray, float64, shape (p,)
        Scale and penalty of each column.

    Returns
    -------
    error : float
        Mean over the folds.
    gradient : numpy.ndarray, float64, shape (p,)
    """
    total = reduce(add, by_fold)
    error, gradient = 0.0, np.zeros(len(scale))
    for held in by_fold:
        train = total - held
        gram, cross, _ = train.moments_about(train, scale)
        penalised = cholesky(gram, alpha)
        coef = linalg.cho_solve(penalised, cross, check_finite=False)
        gram, cross, square = held.moments_about(train, scale)
        product = gram @ coef
        share = 1.0 / (held.n * coef.shape[1] * len(by_fold))
        error += share * (square - 2 * np.vdot(coef, cross) + np.vdot(coef, product))
        back = linalg.cho_solve(penalised, product - cross, overwrite_b=True, check_finite=False)
        gradient -= 2 * share * np.einsum("ij,ij->i", back, coef)
    return float(error), gradient


def penalty_ratios(by_fold: Sequence[Sums], scale: F64, widths: Sequence[int]) -> F64:
    """Find the ratios between the blocks' penalties that minimise the cross-validated squared error.

    Parameters
    ----------
    by_fold : sequence of Sums
    scale : numpy.ndarray, float64, shape (p,)
        From `gram.block_scale`.
    widths : sequence of int
        Number of columns of each of the b blocks.

    Returns
    -------
    numpy.ndarray, float64, shape (b,)
        One factor for each block, with geometric mean 1.
    """
    if len(widths) == 1:
        return np.ones(1)
    of_column = np.repeat(np.arange(len(widths)), widths)
    n = sum(sums.n for sums in by_fold)
    start = cross_validation_error(by_fold, scale, np.full(len(scale), n * 10**START))[0] or 1.0

    def error(log: F64) -> tuple[float, F64]:
        alpha = np.exp(log)
        value, gradient = cross_validation_error(by_fold, scale, alpha[of_column])
        return value / start, np.bincount(of_column, gradient) * alpha / start

    low, high = (np.log(n * 10.0**decade) for decade in DECADES)
    with stage("penalty of each backbone", ITERATIONS, "at most") as advance:
        found = optimize.minimize(
            error,
            np.full(len(widths), np.log(n * 10**START)),
            jac=True,
            method="L-BFGS-B",
            bounds=[(low, high)] * len(widths),
            options={"maxiter": ITERATIONS, "ftol": 1e-5},
            callback=lambda point: advance(1),
        )
    relative: F64 = np.exp(found.x - found.x.mean())
    return relative
