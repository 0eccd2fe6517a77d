"""Choosing the ridge penalty: every penalty's solution on every fold from one eigendecomposition a fold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.metrics import cosine

if TYPE_CHECKING:
    from img2prompt_cache.gram import F32, F64, Chunk, Sums

    Chunks = Callable[[], Iterable[Chunk]]

STEPS = 4
"""Penalties per decade."""
DECADES = (-5, 1)
"""Range of penalties per row that is always tried, as powers of ten."""
LIMITS = (-9, 5)
"""How far the range is extended at most; below, float64 no longer tells linearly dependent features apart."""


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
    """

    mean: F32
    intercept: F32
    values: F64
    basis: F32
    cross: F64


def decompose(sums: Sums, scale: F64) -> Spectrum:
    """Prepare the solutions for every penalty from one eigendecomposition.

    Parameters
    ----------
    sums : Sums
        Over the rows to fit.
    scale : numpy.ndarray, float64, shape (p,)
    """
    gram, cross = sums.centred(scale)
    values, vectors = np.linalg.eigh(gram)
    mean, intercept = sums.means
    basis = (vectors * scale[:, None]).astype(np.float32)
    return Spectrum(mean, intercept, np.maximum(values, 0.0), basis, vectors.T @ cross)


def scores(chunks: Iterable[Chunk], spectra: Sequence[Spectrum], alphas: F64) -> tuple[F64, F64]:
    """Score every penalty on the rows that each fold left out.

    Parameters
    ----------
    chunks : iterable of (x, y, fold)
        The rows once more.
    spectra : sequence of Spectrum
        For each fold, of the rows outside it.
    alphas : numpy.ndarray, float64, shape (a,)

    Returns
    -------
    cosine, mse : numpy.ndarray, float64, shape (a,)
        Mean over folds (as `GridSearchCV` takes it) of the mean over rows: of the cosine, and of the squared
        error of predictions before normalisation.
    """
    sums = np.zeros((2, len(spectra), len(alphas)))
    rows = np.zeros(len(spectra))
    for x, y, fold in chunks:
        for number in np.unique(fold).tolist():
            spectrum, truth = spectra[number], y[fold == number]
            projected = (x[fold == number] - spectrum.mean) @ spectrum.basis
            rows[number] += len(truth)
            for which, alpha in enumerate(alphas):
                weights = (spectrum.cross / (spectrum.values + alpha)[:, None]).astype(np.float32)
                pred = projected @ weights + spectrum.intercept
                sums[0, number, which] += cosine(pred, truth).sum()
                sums[1, number, which] += np.square(pred - truth).mean(axis=1, dtype=np.float64).sum()
    mean: F64 = (sums / rows[:, None]).mean(axis=1)
    return mean[0], mean[1]


def search(chunks: Chunks, spectra: Sequence[Spectrum], n: int, by: str) -> list[dict[str, float]]:
    """Score log-spaced penalties, and go on beyond an end of the range while the best lies there.

    The range is relative to n, the sum of the eigenvalues of one block's Gram matrix under `block_scale`.

    Parameters
    ----------
    chunks : callable
        Gives the rows anew at each call, as `scores` takes them.
    spectra : sequence of Spectrum
    n : int
        Number of rows.
    by : str
        ``"cosine"`` (highest) or ``"mse"`` (lowest).

    Returns
    -------
    list of dict
        `alpha`, `cosine` and `mse` of each penalty, by ascending penalty.
    """
    tried: list[dict[str, float]] = []
    low, high = DECADES
    exponents = np.arange(low * STEPS, high * STEPS + 1)
    while True:
        alphas = n * 10.0 ** (exponents / STEPS)
        found = zip(alphas, *scores(chunks(), spectra, alphas), strict=True)
        tried += [{"alpha": float(a), "cosine": float(c), "mse": float(m)} for a, c, m in found]
        tried.sort(key=lambda record: record["alpha"])
        place = tried.index(best(tried, by))
        if place == 0 and low > LIMITS[0]:
            exponents, low = np.arange((low - 1) * STEPS, low * STEPS), low - 1
        elif place == len(tried) - 1 and high < LIMITS[1]:
            exponents, high = np.arange(high * STEPS, (high + 1) * STEPS) + 1, high + 1
        else:
            return tried


def best(tried: Sequence[dict[str, float]], by: str) -> dict[str, float]:
    """Give the record with the highest `cosine` or the lowest `mse`; of equals, the last."""
    return max(reversed(tried), key=lambda record: record[by] if by == "cosine" else -record[by])
