"""Metrics of predicted embeddings: cosine similarity, squared error, retrieval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIE = 1e-6
"""Scores closer than this are equal: rounding in float32 makes products of equal vectors differ by less."""


def unit(x: NDArray[Any]) -> NDArray[np.float32]:
    """Scale each row to length 1.

    Parameters
    ----------
    x : numpy.ndarray, shape (n, d)
        Rows of any finite length; a row of zeros stays zero.

    Returns
    -------
    numpy.ndarray, float32, shape (n, d)
    """
    length = lengths(x)
    length[length == 0] = 1.0
    scaled = np.empty(x.shape, np.float32)
    np.divide(x, length[:, None], out=scaled, casting="same_kind")
    return scaled


def cosine(pred: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the cosine similarity of each row of `pred` with the same row of `true`.

    Parameters
    ----------
    pred, true : numpy.ndarray, shape (n, d)

    Returns
    -------
    numpy.ndarray, float64, shape (n,)
        In −1…1, up to rounding; 0 where either row is zero.
    """
    length = lengths(pred) * lengths(true)
    length[length == 0] = 1.0
    similarity: NDArray[np.float64] = np.einsum("ij,ij->i", pred, true, dtype=np.float64) / length
    return similarity


def mean_cosine(pred: NDArray[Any], true: NDArray[Any]) -> float:
    """Compute the mean cosine similarity over rows: the score of the competition.

    Parameters
    ----------
    pred, true : numpy.ndarray, shape (n, d), n ≥ 1
    """
    return float(cosine(pred, true).mean())


def mse(pred: NDArray[Any], true: NDArray[Any]) -> float:
    """Compute the mean squared error over all elements.

    For unit vectors of width d it is equivalent to the cosine: ``mse = 2 (1 − cosine) / d``. With d = 384 an
    MSE of 0.003 is a cosine of 0.424, 0.004 is 0.232 and 0.006 is −0.152. For predictions that are not
    normalised this does not hold: the zero vector has the low error 1 / 384 ≈ 0.0026, but predicts nothing.

    Parameters
    ----------
    pred, true : numpy.ndarray, shape (n, d), n ≥ 1
    """
    error = np.subtract(pred, true, dtype=np.float64)
    return float(np.einsum("ij,ij->", error, error) / error.size)


def retrieval(
    pred: NDArray[np.float32],
    bank: NDArray[np.float32],
    truth_index: NDArray[np.int64],
    ks: Iterable[int] = (1, 5),
) -> dict[int, float]:
    """Compute the share of predictions whose true prompt is among the k nearest prompts of a bank, by cosine.

    A prompt that is exactly as near as the true one, or whose score is not a number, counts as nearer, so
    that a constant prediction does not profit from ties.

    Parameters
    ----------
    pred : numpy.ndarray, shape (n, d), n ≥ 1
        Predicted embeddings.
    bank : numpy.ndarray, shape (m, d)
        Embeddings of distinct prompts; a duplicate would be a tie with itself.
    truth_index : numpy.ndarray, int64, shape (n,)
        Row of the true prompt in `bank`, for each prediction.
    ks : iterable of int
        Values of k.

    Returns
    -------
    dict of int to float
        For each k, a share of the predictions, 0…1.
    """
    pred, bank = unit(pred), unit(bank)
    rank = np.empty(len(pred), np.int64)
    step = max(1, 2**23 // len(bank))
    for start in range(0, len(pred), step):
        rows = slice(start, start + step)
        scores = pred[rows] @ bank.T
        truth = np.take_along_axis(scores, truth_index[rows, None], axis=1)
        rank[rows] = np.count_nonzero(~(scores < truth - TIE), axis=1)
    return {k: float(np.mean(rank <= k)) for k in ks}


def lengths(x: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the length of each row of a matrix: float64, shape (n,)."""
    found: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    return found
