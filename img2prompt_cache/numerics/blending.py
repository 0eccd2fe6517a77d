"""Blending: non-negative weights of several predictions, so that their mix has the best mean cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]
    Fold = NDArray[np.int64]

ROWS = 8192
"""Rows whose products are taken at a time."""

TIE = 1e-12
"""Mean cosines closer than this are equal: what is left is the rounding of a sum."""

NOTHING = 1e-6
"""A weight below this share of all is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """All that the cosine of a mix depends on, so that no weight costs a pass over the predictions.

    With unit predictions p_j and unit target y of one row, the mix Σ w_j p_j has the cosine
    w·c / √(wᵀGw) with the target, where c_j = p_j·y and G_jk = p_j·p_k.

    Attributes
    ----------
    true : numpy.ndarray, float64, shape (n, m)
        c of each row.
    between : numpy.ndarray, float64, shape (n, m, m)
        G of each row.
    """

    true: F64
    between: F64

    def rows(self, which: NDArray[np.bool_]) -> Overlaps:
        """Give those of some rows."""
        return Overlaps(self.true[which], self.between[which])

    def without(self, member: int) -> Overlaps:
        """Give those of all members but one."""
        keep = np.arange(self.true.shape[1]) != member
        return Overlaps(self.true[:, keep], self.between[:, keep][:, :, keep])


def overlaps(predictions: Sequence[F32], targets: F32) -> Overlaps:
    """Take the products of predictions with each other and with the targets.

    Parameters
    ----------
    predictions : sequence of m numpy.ndarray, float32, shape (n, t)
        Scaled to length 1 here.
    targets : numpy.ndarray, float32, shape (n, t)
    """
    n, m = len(targets), len(predictions)
    products = np.empty((n, m + 1, m + 1))
    for start in range(0, n, ROWS):
        rows = slice(start, start + ROWS)
        vectors = np.stack([unit(each[rows]) for each in (*predictions, targets)], axis=1).astype(np.float64)
        products[rows] = vectors @ vectors.transpose(0, 2, 1)
    return Overlaps(products[:, :m, m].copy(), products[:, :m, :m].copy())


def cosines(known: Overlaps, weights: F64) -> F64:
    """Cosine of each row's mix with its target, by weights (m,) or (n, m): shape (n,); 0 if it vanishes."""
    return _cosines(known, weights)[0]


def best_weights(known: Overlaps) -> F64:
    """Find the weights whose mix has the best mean cosine.

    The mean cosine does not change when all weights are multiplied by a number, so w ≥ 0 is the only bound
    that the search (L-BFGS-B with the exact gradient) needs, and it ends on that bound for a member that does
    not help. The mean need not be concave: the search starts from equal weights and from each member alone,
    so the result is never worse than any of these.

    Parameters
    ----------
    known : Overlaps
        Of n ≥ 1 rows and m ≥ 1 members.

    Returns
    -------
    numpy.ndarray, float64, shape (m,)
        Each ≥ 0, summing to 1. Where several are equally good, those found from equal weights, or else from
        the first member.
    """
    m = known.true.shape[1]
    best, highest = np.full(m, 1 / m), -np.inf
    for start in (best, *np.eye(m)):
        for weights in (start, _climbed(known, start)):
            reached = float(cosines(known, weights).mean())
            if reached > highest + TIE:
                best, highest = weights, reached
    return best


def cross_weights(known: Overlaps, fold: Fold) -> F64:
    """Find for each fold the best weights of all other rows: shape (k, m).

    Parameters
    ----------
    known : Overlaps
    fold : numpy.ndarray, int64, shape (n,)
        Fold of each row, 0…k−1, k ≥ 2.
    """
    return np.array([best_weights(known.rows(fold != number)) for number in range(fold.max() + 1)])


def mix(predictions: Sequence[F32], weights: F64) -> F32:
    """Mix unit predictions by weights: float32, shape (n, t), unit norm.

    Parameters
    ----------
    predictions : sequence of m numpy.ndarray, float32, shape (n, t)
    weights : numpy.ndarray, float64, shape (m,), or (n, m) for each row its own
    """
    total = np.zeros(predictions[0].shape)
    for member, each in enumerate(predictions):
        total += weights[..., member, None] * unit(each)
    return unit(total)


def ablation(known: Overlaps, fold: Fold, weights: F64) -> list[dict[str, float]]:
    """Tell what each member is good for: one record per member.

    Parameters
    ----------
    known : Overlaps
        Of predictions for rows that no member was fitted on.
    fold : numpy.ndarray, int64, shape (n,)
        Grouped folds of these rows, 0…k−1, k ≥ 2.
    weights : numpy.ndarray, float64, shape (m,)
        Found on all of these rows.

    Returns
    -------
    list of dict
        `member`, its number; `weight`; `cosine` of the member alone; `without`, that of a blend of the
        others, each row mixed by weights found on the other folds. Of one member there are no others.
    """
    records = [
        {"member": member, "weight": float(weights[member]), "cosine": float(cosines(known, alone).mean())}
        for member, alone in enumerate(np.eye(len(weights)))
    ]
    for member, record in enumerate(records if len(records) > 1 else ()):
        others = known.without(member)
        found = cosines(others, cross_weights(others, fold)[fold])
        record["without"] = float(found.mean())
    return records


def _climbed(known: Overlaps, start: F64) -> F64:
    from scipy.optimize import minimize

    found = minimize(
        _loss,
        start,
        (known,),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * len(start),
        options={"maxiter": 1000, "ftol": 0, "gtol": 1e-9},
    )
    weights = np.where(found.x < NOTHING * found.x.sum(), 0.0, found.x)
    scaled: F64 = weights / weights.sum()
    return scaled


def _loss(weights: F64, known: Overlaps) -> tuple[float, F64]:
    """Minus the mean cosine of the mix, and its gradient: −mean(c/s − (w·c) Gw/s³) with s = √(wᵀGw)."""
    found, length, pull = _cosines(known, weights)
    # A mix that vanishes has no direction, and so no say.
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    gradient = (scale[:, None] * known.true - (found * scale**2)[:, None] * pull).mean(axis=0)
    return -float(found.mean()), -gradient


def _cosines(known: Overlaps, weights: F64) -> tuple[F64, F64, F64]:
    """Cosine (n,) of each row's mix, the mix's length (n,), 0 where it vanishes, and Gw (n, m)."""
    pull = known.between @ weights if weights.ndim == 1 else np.einsum("njk,nk->nj", known.between, weights)
    length = np.sqrt(np.maximum((pull * weights).sum(axis=1), 0))
    length[length < 1e-6 * weights.sum(axis=-1)] = 0  # less is the rounding of float32 predictions
    found = np.divide((known.true * weights).sum(axis=1), length, out=np.zeros_like(length), where=length > 0)
    return found, length, pull
