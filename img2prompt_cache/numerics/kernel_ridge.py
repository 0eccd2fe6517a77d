"""Kernel ridge regression with the kernel k(a, b) = exp(Σ g (cos(a, b) − 1)), with one gain g per backbone.

If each backbone's unit vector is scaled by √g, the exponent is a single inner product, so a kernel matrix
takes one matrix product. The module has the exact solution, the Nyström approximation by landmarks (a subset
of the rows), and the choice of gains and penalty by cross-validation. In shapes, b is the number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg, optimize

from img2prompt_cache.numerics.gram import cholesky
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.row_blocks import in_blocks, over_rows
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.row_blocks import Matrix

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]
    Floats = NDArray[Any]
    Ints = NDArray[np.int64]

GAINS, ALPHAS = (0.01, 100.0), (1e-4, 100.0)
"""Ranges of the gains and of the penalty."""
START_GAIN, START_ALPHA = 3.0, 0.03
"""Sum of the gains, and penalty, from which the search starts."""
ITERATIONS = 25
"""Most iterations of the search."""
SCALE = 50.0
"""Factor of the loss: by its own rules L-BFGS-B takes a step from cosine .45 to .46 for convergence."""
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


def fit_exact(values: F32, y: F64, alpha: float | F64) -> F64:
    """Compute the dual coefficients (n, t) of kernel ridge, (K + αI)⁻¹ y, as in scikit-learn's.

    Parameters
    ----------
    values : numpy.ndarray, float32, shape (n, n)
        Kernel values of the rows.
    y : numpy.ndarray, float64, shape (n, t)
        Centred targets.
    alpha : float, or numpy.ndarray, float64, shape (n,)
        One penalty, or one for each row.

    Raises
    ------
    Img2PromptError
        If the penalty is too small.
    """
    penalised = cholesky(values.astype(np.float64), alpha)
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
    cosines: Sequence[Floats], y: Floats, fold: Ints, gains: F64, alphas: F64, kinds: Ints | None = None
) -> tuple[float, F64, F64]:
    """Compute the mean over folds of the mean cosine on held-out rows, and its exact gradient.

    The gradient is propagated back through the linear solve by the adjoint method: one more solve per fold.
    It is computed in the precision of the cosines.

    Parameters
    ----------
    cosines : sequence of numpy.ndarray, float32 or float64, shape (n, n)
        For each block, the cosines between all rows, minus 1.
    y : numpy.ndarray, same dtype, shape (n, t)
        Targets; unit-norm in rows that are held out.
    fold : numpy.ndarray, int64, shape (n,)
        Fold that holds out the row; -1 for rows that are only fitted on.
    gains : numpy.ndarray, float64, shape (b,)
    alphas : numpy.ndarray, float64, shape (k,)
        Penalty of each kind of rows.
    kinds : numpy.ndarray, int64, shape (n,), optional
        Kind 0…k−1 of each row: each kind has a mean target of its own, and a row is held out only if it is
        of kind 0. All are of kind 0 if absent.

    Returns
    -------
    score : float
    by_gain : numpy.ndarray, float64, shape (b,)
    by_alpha : numpy.ndarray, float64, shape (k,)
    """
    kinds = np.zeros(len(y), np.int64) if kinds is None else kinds
    values = kernel_of_cosines(cosines, gains)
    slopes = np.zeros_like(values)
    score, by_alpha = 0.0, np.zeros(len(alphas))
    numbers = np.unique(fold[fold >= 0])
    for number in numbers:
        held, train = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        inner, outer = np.ix_(train, train), np.ix_(held, train)
        mean, centred = centre_kinds(y[train], kinds[train])
        across = values[outer]
        penalised = cholesky(values[inner], alphas[kinds[train]].astype(values.dtype))
        dual = linalg.cho_solve(penalised, centred, overwrite_b=True, check_finite=False)
        pred = across @ dual + mean
        length = np.maximum(np.sqrt(np.einsum("ij,ij->i", pred, pred)), 1e-12)[:, None]
        pred /= length
        cosine = np.einsum("ij,ij->i", pred, y[held])[:, None]
        score += float(cosine.mean(dtype=np.float64)) / len(numbers)
        slope = (y[held] - cosine * pred) / (length * len(held) * len(numbers))
        back = linalg.cho_solve(penalised, across.T @ slope, overwrite_b=True, check_finite=False)
        by_row = np.einsum("ij,ij->i", back, dual)
        by_alpha -= np.bincount(kinds[train], by_row, len(alphas))
        slopes[outer] += slope @ dual.T
        slopes[inner] -= back @ dual.T
    slopes *= values
    by_gain = np.array([np.vdot(slopes, each) for each in cosines], np.float64)
    return score, by_gain, by_alpha


def kernel_of_cosines(cosines: Sequence[Floats], gains: F64) -> Floats:
    """Compute the kernel matrix (n, n) from each block's cosines minus 1, in their precision."""
    total = weigh_cosines(cosines, gains)
    values: Floats = np.exp(total, out=total)
    return values


def weigh_cosines(cosines: Sequence[Floats], gains: F64) -> Floats:
    """Sum the blocks' matrices (n, n), each multiplied by its gain, in their precision."""
    total: Floats = cosines[0] * cosines[0].dtype.type(gains[0])
    scaled = np.empty_like(total)
    for gain, each in zip(gains[1:], cosines[1:], strict=True):
        total += np.multiply(each, each.dtype.type(gain), out=scaled)
    return total


def means_of_kinds(y: Matrix, kinds: Ints) -> F64:
    """Average the rows of each kind, which are read block by block: float64, shape (k, t)."""

    def totals(part: slice) -> F64:
        found, own = np.zeros((kinds.max() + 1, y.shape[1])), kinds[part]
        for rows, (block,) in in_blocks([y[part]]):
            for kind in range(len(found)):
                found[kind] += block[own[rows] == kind].sum(axis=0, dtype=np.float64)
        return found

    means: F64 = reduce(np.add, over_rows(totals, [y])) / np.bincount(kinds)[:, None]
    return means


def centre_kinds(y: Floats, kinds: Ints) -> tuple[Floats, Floats]:
    """Subtract from each row the mean of its kind; give the mean (t,) of kind 0, and the rows (n, t).

    A joint mean would pull every prediction towards the prompts of the other kinds.
    """
    means = np.stack([y[kinds == kind].mean(axis=0) for kind in range(kinds.max() + 1)])
    return means[0], y - means[kinds]


def search(
    units: F32,
    y: Floats,
    fold: Ints,
    widths: Sequence[int],
    *,
    gains: F64 | None,
    alpha: F64 | None,
    kinds: Ints | None = None,
    on_evaluation: Callable[[F64, F64, float], None],
) -> tuple[F64, F64]:
    """Choose the gains and the penalties by cross-validated cosine, with L-BFGS-B on their logarithms.

    Parameters
    ----------
    units : numpy.ndarray, float32, shape (n, p)
        From `normalise_blocks`.
    y : numpy.ndarray, float32 or float64, shape (n, t)
        Unit-norm targets. Its precision is that of the search.
    fold : numpy.ndarray, int64, shape (n,)
        At least two folds; -1 for rows that are only fitted on.
    widths : sequence of int
        Number of columns of each of the b blocks.
    gains, alpha : optional
        Fixed values; None to choose them.
    kinds : numpy.ndarray, int64, shape (n,), optional
        As for `cross_validated_cosine`; each of the k kinds gets a penalty.
    on_evaluation : callable
        Told the gains, the penalties and the score of each evaluation.

    Returns
    -------
    gains : numpy.ndarray, float64, shape (b,)
    alpha : numpy.ndarray, float64, shape (k,)
    """
    parts = np.split(units, np.cumsum(widths)[:-1], axis=1)
    cosines = [(part @ part.T - np.float32(1)).astype(y.dtype, copy=False) for part in parts]
    b, k = len(widths), 1 if kinds is None else int(kinds.max()) + 1
    start = np.log([*np.full(b, START_GAIN / b), *np.full(k, START_ALPHA)])
    bounds = [(np.log(low), np.log(high)) for low, high in [GAINS] * b + [ALPHAS] * k]
    if gains is not None:
        start[:b] = np.log(gains)
        bounds[:b] = [(value, value) for value in start[:b]]
    if alpha is not None:
        start[b:] = np.log(alpha)
        bounds[b:] = [(value, value) for value in start[b:]]

    def loss(log: F64) -> tuple[float, F64]:
        point = np.exp(log)
        score, by_gain, by_alpha = cross_validated_cosine(cosines, y, fold, point[:b], point[b:], kinds)
        on_evaluation(point[:b], point[b:], score)
        return -SCALE * score, -SCALE * point * np.concatenate([by_gain, by_alpha])

    options = {"maxiter": ITERATIONS, "ftol": 1e-6}
    with stage("kernel settings", ITERATIONS, "at most") as advance:
        minimum = optimize.minimize(
            loss,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options=options,
            callback=lambda point: advance(1),
        )
    found = np.exp(minimum.x)
    return found[:b] if gains is None else gains, found[b:] if alpha is None else alpha
