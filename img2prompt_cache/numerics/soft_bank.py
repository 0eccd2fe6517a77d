"""Soft banks: predictions drawn towards the prompts that are near them.

A prediction p becomes unit(p + β unit(Σ_j w_j b_j)), where the b_j are the unit embeddings of those prompts
of a bank that are nearest to p, and w = softmax(p·b / τ): one step of attention with p as the query, as in a
modern Hopfield network (Ramsauer et al., 2021). A regression predicts the mean of all prompts that an image
might have had, which lies off the part of the sphere where prompts are; a mean over near prompts leads back
towards it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import cosine, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    Ints = NDArray[np.int64]

NEAREST = 30
"""Prompts of the bank that a prediction is drawn towards. With all of a large bank, the many far ones weigh
too much unless τ is so low that only the very nearest count."""
TEMPERATURES = (0.02, 0.03, 0.04, 0.06, 0.09, 0.13, 0.2)
"""Values of τ that are tried."""
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Values of β that are tried; 0 leaves the predictions as they are."""
VALUES = 1 << 24
"""Similarities that are in memory at a time."""


def bank_means(
    predictions: F32, bank: F32, temperatures: Sequence[float], nearest: int = NEAREST
) -> list[F32]:
    """Average the nearest prompts of a bank for each prediction, with the weights softmax(p·b / τ).

    Parameters
    ----------
    predictions : numpy.ndarray, float32, shape (n, t)
        Unit-norm.
    bank : numpy.ndarray, float32, shape (m, t)
        Unit-norm.
    temperatures : sequence of float
        Values of τ, above 0.
    nearest : int
        How many prompts are averaged, of those in the bank; 0 for all.

    Returns
    -------
    list of numpy.ndarray, float32, shape (n, t)
        The means scaled to length 1, for each τ.
    """
    means = [np.empty_like(predictions) for _ in temperatures]
    count = nearest if 0 < nearest < len(bank) else len(bank)
    step = max(1, VALUES // (len(bank) + (count * bank.shape[1] if count < len(bank) else 0)))
    for start in range(0, len(predictions), step):
        rows = slice(start, start + step)
        cosines = predictions[rows] @ bank.T
        near = bank
        if count < len(bank):
            index = np.argpartition(cosines, -count, axis=1)[:, -count:]
            cosines, near = np.take_along_axis(cosines, index, axis=1), bank[index]
        cosines -= cosines.max(axis=1, keepdims=True)
        for found, temperature in zip(means, temperatures, strict=True):
            weights = np.exp(cosines / np.float32(temperature))
            weights /= weights.sum(axis=1, keepdims=True)
            found[rows] = weights @ near if near.ndim == 2 else (weights[:, None] @ near)[:, 0]
    return [unit(each) for each in means]


def soften(predictions: F32, bank: F32, temperature: float, weight: float, nearest: int = NEAREST) -> F32:
    """Draw unit predictions towards the prompts of a bank; the formula is that of the module.

    Parameters
    ----------
    predictions, bank, nearest
        As for `bank_means`.
    temperature : float
        τ, above 0.
    weight : float
        β, at least 0.

    Returns
    -------
    numpy.ndarray, float32, shape (n, t)
        Unit-norm.
    """
    if weight == 0:
        return predictions
    (means,) = bank_means(predictions, bank, [temperature], nearest)
    return unit(predictions + np.float32(weight) * means)


def distinct(own: F32, other: F32) -> F32:
    """Make a bank (b, t) of the distinct rows of `own` (n, t), and of `other` (m, t)."""
    return np.concatenate([np.unique(own, axis=0), other])


def choose(predictions: F32, y: F32, fold: Ints, other: F32) -> tuple[float, float, list[dict[str, float]]]:
    """Choose τ and β by the mean cosine of predictions for rows that the head was not fitted on.

    Parameters
    ----------
    predictions : numpy.ndarray, float32, shape (n, t)
        Each row predicted by a head that was fitted on the other folds; unit-norm.
    y : numpy.ndarray, float32, shape (n, t)
        Unit targets. Each stands in the bank of the rows of other folds.
    fold : numpy.ndarray, int64, shape (n,)
        Grouped folds: the bank of a row holds no prompt of its own fold.
    other : numpy.ndarray, float32, shape (m, t)
        Further embeddings that stand in the bank of every row, m ≥ 0.

    Returns
    -------
    temperature, weight : float
        The weight is 0 where a bank does not help.
    tried : list of dict
        `temperature`, `weight` and `cosine` of each pair of values.
    """
    tried: list[dict[str, float]] = []
    means = [np.empty_like(predictions) for _ in TEMPERATURES]
    for number in np.unique(fold):
        held = fold == number
        bank = distinct(y[~held], other)
        for found, near in zip(means, bank_means(predictions[held], bank, TEMPERATURES), strict=True):
            found[held] = near
    for temperature, near in zip(TEMPERATURES, means, strict=True):
        for weight in WEIGHTS:
            mixed = unit(predictions + np.float32(weight) * near)
            score = float(cosine(mixed, y).mean())
            tried.append({"temperature": temperature, "weight": weight, "cosine": score})
    best = max(tried, key=lambda each: each["cosine"])
    return best["temperature"], best["weight"], tried
