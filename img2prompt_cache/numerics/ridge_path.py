"""The ridge penalty: one eigendecomposition for each fold gives the solutions for every penalty.

The squared error of all penalties follows from the sums of `gram` alone. The cosine needs the rows, so it is
computed only for a few penalties, from the one with the best squared error on, and on at most `MAX_SCORED`
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.numerics.row_blocks import over_rows

if TYPE_CHECKING:
    from img2prompt_cache.numerics.gram import F32, F64, Rows, Sums
    from img2prompt_cache.numerics.row_blocks import Matrix

    Projected = list[list[tuple[F32, F32, F64]]]

STRIP = 256
"""Columns of a symmetric matrix product computed at a time."""
STEPS = 4
"""Number of penalties per decade."""
DECADES = (-8, 5)
"""Range of penalties per row, as powers of ten; smaller ones drown in rounding."""
MAX_SCORED = 4096
"""Rows on which the cosine is computed; of more rows a sample is drawn, which bounds the time."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgePath:
    """The ridge solutions of one training set for every penalty α: ``basis @ (cross / (values + α))``.

    Attributes
    ----------
    mean, intercept : numpy.ndarray, float32, shapes (p,) and (t,)
        Means of the features and of the targets.
    values : numpy.ndarray, float64, shape (p,)
        Eigenvalues of the centred, scaled Gram matrix.
    basis : numpy.ndarray, float32, shape (p, p)
        Its eigenvectors in columns; row i is multiplied by the scale of feature i.
    cross : numpy.ndarray, float64, shape (p, t)
        The centred, scaled cross-product matrix of features and targets, in that basis.
    mse : numpy.ndarray, float64, shape (a,)
        Mean squared error on the held-out rows, for each penalty.
    """

    mean: F32
    intercept: F32
    values: F64
    basis: F32
    cross: F64
    mse: F64


def penalties(n: float) -> F64:
    """Make a grid of log-spaced penalties for n rows, ascending.

    Its range is proportional to n, because n is the sum of the eigenvalues of one block's Gram matrix after
    scaling by `gram.block_scale`.
    """
    low, high = DECADES
    alphas: F64 = n * 10.0 ** (np.arange(low * STEPS, high * STEPS + 1) / STEPS)
    return alphas


def decompose(total: Sums, held: Sums, scale: F64, alphas: F64) -> RidgePath:
    """Prepare the solutions for every penalty by one eigendecomposition, and compute their squared errors.

    Let λ be the eigenvalues of the training Gram matrix, C the cross-product matrix in its eigenbasis, and
    d = 1/(λ + α). The coefficients in the eigenbasis are d∘C. With the second moments G, H and s of the
    held-out rows about the training means, in that basis, the error is s − 2 Σᵢ dᵢ (CH')ᵢᵢ + d'(G∘CC')d.
    G∘CC' is symmetric: only the strips on and above its diagonal are computed, and the latter count twice.

    Parameters
    ----------
    total, held : Sums
        Sums over all rows, and over the held-out rows.
    scale : numpy.ndarray, float64, shape (p,)
    alphas : numpy.ndarray, float64, shape (a,)
    """
    train = total - held
    gram, cross, _ = train.moments_about(train, scale)
    values, vectors = np.linalg.eigh(gram)
    values, cross = np.maximum(values, 0.0), vectors.T @ cross
    gram, other, square = held.moments_about(train, scale)
    turned = vectors.T @ gram
    weights = 1.0 / (values + alphas[:, None])
    error = square - 2 * weights @ np.einsum("ij,ij->i", cross, vectors.T @ other)
    for start in range(0, len(values), STRIP):
        stop = min(start + STRIP, len(values))
        pairs = turned[:stop] @ vectors[:, start:stop]
        pairs *= cross[:stop] @ cross[start:stop].T
        pairs[:start] *= 2
        error += np.einsum("ai,ai->a", weights[:, :stop] @ pairs, weights[:, start:stop])
    mean, intercept = train.means
    return RidgePath(
        (train.shift + mean).astype(np.float32),
        intercept.astype(np.float32),
        values,
        (vectors * scale[:, None]).astype(np.float32),
        cross,
        error / (held.n * cross.shape[1]),
    )


def project(
    chunks: Iterable[Rows], paths: Sequence[RidgePath], rows: int, seed: int, start: int = 0
) -> Projected:
    """Project held-out rows, or a sample of them, onto the eigenbasis of their fold.

    Parameters
    ----------
    chunks : iterable of Rows
        All rows, a second time; or those from `start` on, or some of these.
    paths : sequence of RidgePath
        For each fold, the one of its training rows.
    rows : int
        Number of rows.
    seed : int
        Seed of the sample, which is drawn if there are more than `MAX_SCORED` rows.
    start : int
        Number of the first row: whether a row is drawn does not depend on where chunks begin.

    Returns
    -------
    list of list of (projected, y, weight)
        For each fold, in chunks of shapes (m, p), (m, t) and (m,).
    """
    bits, share = np.random.PCG64(seed), MAX_SCORED / rows
    rng = np.random.Generator(bits.advance(start))
    found: Projected = [[] for _ in paths]
    for chunk in chunks:
        fold = chunk.fold if share >= 1 else np.where(rng.random(len(chunk.fold)) < share, chunk.fold, -1)
        for number, path in enumerate(paths):
            for x, y, weight in replace(chunk, fold=fold).of_fold(number):
                projected = np.matmul(x - path.mean, path.basis, dtype=np.float32)
                found[number].append((projected, y, weight))
    return found


def project_parts(
    chunks: Callable[[slice], Iterable[Rows]],
    matrices: Sequence[Matrix],
    paths: Sequence[RidgePath],
    seed: int,
) -> Projected:
    """Project as `project` does, by workers where there are any; see `gram.accumulate_parts`."""
    rows = len(matrices[0])
    parts = over_rows(lambda part: project(chunks(part), paths, rows, seed, part.start), matrices)
    return [[*chain.from_iterable(found)] for found in zip(*parts, strict=True)]


def held_out_cosine(projected: Projected, paths: Sequence[RidgePath], alpha: float) -> float:
    """Compute the mean over folds, as `GridSearchCV` does, of the weighted mean cosine on held-out rows."""
    means = []
    for path, parts in zip(paths, projected, strict=True):
        if not parts:
            continue  # the sample contains no row of this small fold
        coef = (path.cross / (path.values + alpha)[:, None]).astype(np.float32)
        found = [(cosine(z @ coef + path.intercept, y), weight) for z, y, weight in parts]
        values, weights = (np.concatenate(column) for column in zip(*found, strict=True))
        means.append(np.average(values, weights=weights))
    return float(np.mean(means))


def argmin_error(mse: F64) -> int:
    """Find the index of the smallest squared error; penalties ascend, and of equal errors the last counts."""
    return len(mse) - 1 - int(np.argmin(mse[::-1]))


def hill_climb(start: int, count: int, score: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """Find the penalty with the best score by hill climbing, first in coarse steps, then in fine ones.

    It moves by half a decade while that raises the score, then by a quarter of a decade. If the score has a
    single maximum near the start, five scores are enough. Of penalties with equal scores the largest is
    chosen.

    Parameters
    ----------
    start : int
        Index to start from.
    count : int
        Number of penalties, which ascend.
    score : callable
        Computes the score of the penalty at an index.

    Returns
    -------
    best : int
        Index of the best penalty.
    scores : dict of int to float
        The scores that were computed.
    """
    known: dict[int, float] = {}
    best = start
    for step in (STEPS // 2, 1):
        while True:
            near = [index for index in (best - step, best, best + step) if 0 <= index < count]
            for index in near:
                if index not in known:
                    known[index] = score(index)
            top = max(near, key=lambda index: (known[index], index))
            if top == best:
                break
            best = top
    return best, known
