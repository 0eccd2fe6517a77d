"""Choosing the ridge penalty: every penalty's solution on every fold from one eigendecomposition a fold.

Squared error comes from the sums alone, for all penalties at once. The cosine needs the rows, so it is
computed for few penalties, coarse to fine from the best squared error, and on at most `MAX_SCORED` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import cosine

if TYPE_CHECKING:
    from img2prompt_cache.numerics.gram import F32, F64, Rows, Sums

    Projected = list[list[tuple[F32, F32, F64]]]

STRIP = 256
"""Columns of a symmetric product worked out at a time."""
STEPS = 4
"""Penalties per decade."""
DECADES = (-8, 5)
"""Range of penalties per row, as powers of ten; below, rounding no longer tells dependent features apart."""
MAX_SCORED = 4096
"""Rows that the cosine is scored on; beyond these a sample is drawn, so that choosing stays quick."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The ridge solutions of one training side for every α: ``basis @ (cross / (values + α))``.

    Attributes
    ----------
    mean, intercept : numpy.ndarray, float32, shapes (p,) and (t,)
        Means of the features and of the targets.
    values : numpy.ndarray, float64, shape (p,)
        Eigenvalues of the centred, scaled Gram matrix.
    basis : numpy.ndarray, float32, shape (p, p)
        Its eigenvectors in columns, their rows times the scale.
    cross : numpy.ndarray, float64, shape (p, t)
        The centred, scaled cross matrix in that basis.
    mse : numpy.ndarray, float64, shape (a,)
        For each penalty it was made for, the mean squared error on the rows left out.
    """

    mean: F32
    intercept: F32
    values: F64
    basis: F32
    cross: F64
    mse: F64


def penalties(n: float) -> F64:
    """Log-spaced penalties for n rows, ascending.

    The range is relative to n, the sum of the eigenvalues of one block's Gram matrix under `block_scale`.
    """
    low, high = DECADES
    alphas: F64 = n * 10.0 ** (np.arange(low * STEPS, high * STEPS + 1) / STEPS)
    return alphas


def decompose(total: Sums, held: Sums, scale: F64, alphas: F64) -> Spectrum:
    """Prepare the solutions for every penalty from one eigendecomposition, and their squared errors.

    With d = 1/(λ + α), the coefficients in the eigenbasis are d∘C, so the error on the rows held out, whose
    moments about the training means are G, H and s in that basis, is s − 2 Σᵢ dᵢ (CH')ᵢᵢ + d'(G∘CC')d.
    Of the symmetric G∘CC' the strips above its diagonal are worked out, and count twice.

    Parameters
    ----------
    total, held : Sums
        Over all rows, and over those left out.
    scale : numpy.ndarray, float64, shape (p,)
    alphas : numpy.ndarray, float64, shape (a,)
    """
    train = total - held
    gram, cross, _ = train.about(train, scale)
    values, vectors = np.linalg.eigh(gram)
    values, cross = np.maximum(values, 0.0), vectors.T @ cross
    gram, other, square = held.about(train, scale)
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
    return Spectrum(
        (train.shift + mean).astype(np.float32),
        intercept.astype(np.float32),
        values,
        (vectors * scale[:, None]).astype(np.float32),
        cross,
        error / (held.n * cross.shape[1]),
    )


def project(chunks: Iterable[Rows], spectra: Sequence[Spectrum], rows: int, seed: int) -> Projected:
    """Project rows left out, or a sample of them, on the basis of their fold.

    Parameters
    ----------
    chunks : iterable of Rows
        All rows once more.
    spectra : sequence of Spectrum
        For each fold, of the rows outside it.
    rows : int
        How many rows there are.
    seed : int
        Of the sample, drawn where there are more than `MAX_SCORED`.

    Returns
    -------
    list of list of (projected, y, weight)
        For each fold; shapes (m, p), (m, t) and (m,).
    """
    rng, share = np.random.default_rng(seed), MAX_SCORED / rows
    found: Projected = [[] for _ in spectra]
    for chunk in chunks:
        fold = chunk.fold if share >= 1 else np.where(rng.random(len(chunk.fold)) < share, chunk.fold, -1)
        for number, spectrum in enumerate(spectra):
            for x, y, weight in replace(chunk, fold=fold).of(number):
                projected = np.matmul(x - spectrum.mean, spectrum.basis, dtype=np.float32)
                found[number].append((projected, y, weight))
    return found


def held_cosine(projected: Projected, spectra: Sequence[Spectrum], alpha: float) -> float:
    """Mean over folds (as `GridSearchCV` takes it) of the weighted mean cosine on the rows left out."""
    means = []
    for spectrum, parts in zip(spectra, projected, strict=True):
        if not parts:
            continue  # a fold so small that the sample missed it
        coef = (spectrum.cross / (spectrum.values + alpha)[:, None]).astype(np.float32)
        found = [(cosine(z @ coef + spectrum.intercept, y), weight) for z, y, weight in parts]
        values, weights = (np.concatenate(column) for column in zip(*found, strict=True))
        means.append(np.average(values, weights=weights))
    return float(np.mean(means))


def lowest(mse: F64) -> int:
    """Index of the least squared error, of ascending penalties; of equals, of the strongest."""
    return len(mse) - 1 - int(np.argmin(mse[::-1]))


def climb(start: int, count: int, score: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """Find the penalty with the best score, coarse to fine.

    Steps of half a decade are taken while they help, then of a quarter: a curve with one top near the start
    is climbed with five scores. Of equals, the strongest penalty is taken.

    Parameters
    ----------
    start : int
        Index to start from.
    count : int
        How many penalties there are, ascending.
    score : callable
        Gives the score of the penalty at an index.

    Returns
    -------
    best : int
        Index of the best penalty.
    scores : dict of int to float
        The scores that were asked for.
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
