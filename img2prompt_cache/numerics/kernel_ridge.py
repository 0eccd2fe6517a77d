"""Kernel ridge regression with the kernel k(a, b) = exp(Σ g (cos(a, b) − 1)), with one gain g per backbone.

If each backbone's unit vector is scaled by √g, the exponent is a single inner product, so a kernel matrix
takes one matrix product. The module has the exact solution, the Nyström approximation by landmarks (a subset
of the rows), and the choice of gains and penalty by cross-validation. In shapes, b is the number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, optimize

from img2prompt_cache.numerics.gram import cholesky
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]
    Ints = NDArray[np.int64]

GAINS, ALPHAS = (0.01, 100.0), (1e-4, 100.0)
"""Ranges of the gains and of the penalty."""
START_GAIN, START_ALPHA = 3.0, 0.03
"""Sum of the gains, and penalty, from which the search starts."""
JITTER = 1e-4
"""Added to the diagonal of the landmarks' kernel matrix, which identical landmarks make singular."""
SAMPLE = 1024
"""Rows from which leverage scores are estimated."""
ROWS = 4096
"""Rows whose kernel values are in memory at a time."""


def normalise_blocks(x: F32, widths: Sequence[int] | Ints) -> F32:
    """Scale each block of each row to length 1; a zero vector stays zero."""
    parts = np.split(x, np.cumsum(widths)[:-1], axis=1)
    return np.hstack([unit(part) for part in parts])


def scale_blocks(units: F32, widths: Sequence[int] | Ints, gains: F64) -> F32:
    """Multiply each block by the square root of its gain, as `kernel` expects."""
    scaled: F32 = units * np.repeat(np.sqrt(gains), widths).astype(np.float32)
    return scaled


def kernel(a: F32, b: F32, gains: F64) -> F32:
    """Compute the kernel values of rows.

    Parameters
    ----------
    a, b : numpy.ndarray, float32, shapes (n, p) and (m, p)
        From `scale_blocks`.
    gains : numpy.ndarray, float64, shape (b,)

    Returns
    -------
    numpy.ndarray, float32, shape (n, m), in 0…1
    """
    values: F32 = a @ b.T
    values -= np.float32(gains.sum())
    return np.exp(values, out=values)


def fit_exact(rows: F32, y: F64, gains: F64, alpha: float) -> F64:
    """Compute the dual coefficients (n, t) of kernel ridge, (K + αI)⁻¹ y, as in scikit-learn's.

    Parameters
    ----------
    rows : numpy.ndarray, float32, shape (n, p)
        From `scale_blocks`.
    y : numpy.ndarray, float64, shape (n, t)
        Centred targets.
    gains : numpy.ndarray, float64, shape (b,)
    alpha : float

    Raises
    ------
    Img2PromptError
        If the penalty is too small.
    """
    penalised = cholesky(kernel(rows, rows, gains).astype(np.float64), alpha)
    dual: F64 = linalg.cho_solve(penalised, y, check_finite=False)
    return dual


def nystroem_map(landmarks: F32, gains: F64) -> F32:
    """Compute the matrix (m, m) that maps kernel values with m landmarks to Nyström features.

    The inner products of Nyström features approximate the kernel (Williams & Seeger, 2001). The matrix is L⁻ᵀ
    with LL' = K_mm; any root of K_mm would do, and Cholesky's is the cheapest.
    """
    root, _ = cholesky(kernel(landmarks, landmarks, gains).astype(np.float64), JITTER, lower=True)
    inverse = linalg.solve_triangular(
        root, np.eye(len(root)), lower=True, overwrite_b=True, check_finite=False
    )
    found: F32 = inverse.T.astype(np.float32)
    return found


def sample_landmarks(rows: F32, gains: F64, alpha: float, count: int, seed: int) -> Ints:
    """Draw rows with probabilities proportional to their ridge leverage scores.

    The scores are estimated from a uniform sample (Musco & Musco, 2017, one level). A row has a high score if
    the other rows predict little of it; near-identical rows share the probability of one.

    Parameters
    ----------
    rows : numpy.ndarray, float32, shape (n, p)
        From `scale_blocks`.
    gains : numpy.ndarray, float64, shape (b,)
    alpha : float
    count : int
        Number of rows to draw, at most n.
    seed : int

    Returns
    -------
    numpy.ndarray, int64, shape (count,), ascending
    """
    rng = np.random.default_rng(seed)
    n = len(rows)
    sample = rows[np.sort(rng.choice(n, min(SAMPLE, n), replace=False))]
    share = len(sample) / n
    # The sample stands for 1/share times as many rows, so the penalty is scaled by share instead.
    root, _ = cholesky(kernel(sample, sample, gains).astype(np.float64), alpha * share, lower=True)
    inverse = linalg.solve_triangular(root, np.eye(len(root)), lower=True).T.astype(np.float32)
    leverage = np.empty(n)
    for start in range(0, n, ROWS):
        known = kernel(rows[start : start + ROWS], sample, gains) @ inverse
        leverage[start : start + ROWS] = 1.0 - np.einsum("ij,ij->i", known, known, dtype=np.float64)
    leverage = np.maximum(leverage, 1e-6)
    return np.sort(rng.choice(n, count, replace=False, p=leverage / leverage.sum()))


def cross_validated_cosine(
    cosines: Sequence[F64], y: F64, fold: Ints, gains: F64, alpha: float
) -> tuple[float, F64, float]:
    """Compute the mean over folds of the mean cosine on held-out rows, and its exact gradient.

    The gradient is propagated back through the linear solve by the adjoint method: one more solve per fold.

    Parameters
    ----------
    cosines : sequence of numpy.ndarray, float64, shape (n, n)
        For each block, the cosines between all rows, minus 1.
    y : numpy.ndarray, float64, shape (n, t)
        Unit-norm targets.
    fold : numpy.ndarray, int64, shape (n,)
    gains, alpha
        As for `fit_exact`.

    Returns
    -------
    score : float
    by_gain : numpy.ndarray, float64, shape (b,)
    by_alpha : float
    """
    values = np.exp(sum(gain * each for gain, each in zip(gains, cosines, strict=True)))
    score, by_gain, by_alpha = 0.0, np.zeros(len(cosines)), 0.0
    numbers = np.unique(fold)
    for number in numbers:
        held, train = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        inner, outer = np.ix_(train, train), np.ix_(held, train)
        mean = y[train].mean(axis=0)
        between, across = values[inner], values[outer]
        penalised = cholesky(between.copy(), alpha)
        dual = linalg.cho_solve(penalised, y[train] - mean, overwrite_b=True, check_finite=False)
        pred = across @ dual + mean
        length = np.maximum(np.sqrt(np.einsum("ij,ij->i", pred, pred)), 1e-12)[:, None]
        pred /= length
        cosine = np.einsum("ij,ij->i", pred, y[held])[:, None]
        score += cosine.mean() / len(numbers)
        slope = (y[held] - cosine * pred) / (length * len(held) * len(numbers))
        back = linalg.cho_solve(penalised, across.T @ slope, overwrite_b=True, check_finite=False)
        by_alpha -= np.vdot(back, dual)
        across *= slope @ dual.T
        between *= back @ dual.T
        by_gain += [np.vdot(across, each[outer]) - np.vdot(between, each[inner]) for each in cosines]
    return float(score), by_gain, float(by_alpha)


def search(
    units: F32,
    y: F64,
    fold: Ints,
    widths: Sequence[int],
    *,
    gains: F64 | None,
    alpha: float | None,
    on_evaluation: Callable[[F64, float, float], None],
) -> tuple[F64, float]:
    """Choose the gains and the penalty by cross-validated cosine, with L-BFGS-B on their logarithms.

    Parameters
    ----------
    units : numpy.ndarray, float32, shape (n, p)
        From `normalise_blocks`.
    y : numpy.ndarray, float64, shape (n, t)
        Unit-norm targets.
    fold : numpy.ndarray, int64, shape (n,)
        At least two folds.
    widths : sequence of int
        Number of columns of each of the b blocks.
    gains, alpha : optional
        Fixed values; None to choose them.
    on_evaluation : callable
        Told the gains, the penalty and the score of each evaluation.

    Returns
    -------
    gains : numpy.ndarray, float64, shape (b,)
    alpha : float
    """
    parts = np.split(units, np.cumsum(widths)[:-1], axis=1)
    cosines = [(part @ part.T - 1.0).astype(np.float64) for part in parts]
    start = np.log([*np.full(len(widths), START_GAIN / len(widths)), START_ALPHA])
    bounds = [(np.log(low), np.log(high)) for low, high in [GAINS] * len(widths) + [ALPHAS]]
    if gains is not None:
        start[:-1] = np.log(gains)
        bounds[:-1] = [(value, value) for value in start[:-1]]
    if alpha is not None:
        start[-1] = np.log(alpha)
        bounds[-1] = (start[-1], start[-1])

    def loss(log: F64) -> tuple[float, F64]:
        point = np.exp(log)
        score, by_gain, by_alpha = cross_validated_cosine(cosines, y, fold, point[:-1], point[-1])
        on_evaluation(point[:-1], float(point[-1]), score)
        return -score, -point * np.append(by_gain, by_alpha)

    options = {"maxiter": 15, "ftol": 1e-5}
    found = np.exp(
        optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    )
    return found[:-1] if gains is None else gains, float(found[-1]) if alpha is None else alpha
