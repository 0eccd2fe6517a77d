"""Blending: non-negative weights of several predictions, so that their mix has the best mean cosine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.metrics import unit

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


@dataclass(frozen=True, slots=True)
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
    """Cosine with the target of each row's mix by weights (m,): shape (n,); 0 where the mix vanishes."""
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


def mix(predictions: Sequence[F32], weights: F64) -> F32:
    """Mix unit predictions by weights: float32, shape (n, t), unit norm.

    Parameters
    ----------
    predictions : sequence of m numpy.ndarray, float32, shape (n, t)
    weights : numpy.ndarray, float64, shape (m,)
    """
    total = np.zeros(predictions[0].shape, np.float32)
    for weight, each in zip(weights, predictions, strict=True):
        if weight:
            total += np.float32(weight) * unit(each)
    return unit(total)


def cross_mix(predictions: Sequence[F32], known: Overlaps, fold: Fold) -> F32:
    """Mix each row by weights that were found on the other folds: float32, shape (n, t), unit norm.

    Parameters
    ----------
    predictions : sequence of m numpy.ndarray, float32, shape (n, t)
    known : Overlaps
        Of these with the targets.
    fold : numpy.ndarray, int64, shape (n,)
        Fold of each row; at least two.
    """
    mixed = np.empty(predictions[0].shape, np.float32)
    for held, weights in _cross_weights(known, fold):
        mixed[held] = mix([each[held] for each in predictions], weights)
    return mixed


def ablation(known: Overlaps, fold: Fold, weights: F64) -> list[dict[str, float]]:
    """Tell what each member is good for: one record per member.

    Parameters
    ----------
    known : Overlaps
        Of predictions for rows that no member was fitted on.
    fold : numpy.ndarray, int64, shape (n,)
        Grouped folds of these rows, at least two.
    weights : numpy.ndarray, float64, shape (m,)
        Found on all of these rows.

    Returns
    -------
    list of dict
        `member`, its number; `weight`; `cosine` of the member alone; `without`, that of a blend of the
        others, each row mixed by weights found on the other folds. Of one member there are no others.
    """
    m = len(weights)
    records = [
        {"member": member, "weight": float(weights[member]), "cosine": float(cosines(known, alone).mean())}
        for member, alone in enumerate(np.eye(m))
    ]
    for member, record in enumerate(records if m > 1 else ()):
        record["without"] = cross_cosine(known.without(member), fold)
    return records


def cross_cosine(known: Overlaps, fold: Fold) -> float:
    """Mean cosine of rows mixed by weights that were found on the other folds."""
    found = [cosines(known.rows(held), weights) for held, weights in _cross_weights(known, fold)]
    return float(np.concatenate(found).mean())


def _cross_weights(known: Overlaps, fold: Fold) -> Iterator[tuple[NDArray[np.bool_], F64]]:
    for number in np.unique(fold):
        held = fold == number
        yield held, best_weights(known.rows(~held))


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
    weights: F64 = np.where(found.x < NOTHING * found.x.sum(), 0.0, found.x)
    return weights / weights.sum()


def _loss(weights: F64, known: Overlaps) -> tuple[float, F64]:
    """Minus the mean cosine of the mix, and its gradient: −mean(c/s − (w·c) Gw/s³) with s = √(wᵀGw)."""
    found, length, pull = _cosines(known, weights)
    # A mix that vanishes has no direction, and so no say.
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    gradient = (scale[:, None] * known.true - (found * scale**2)[:, None] * pull).mean(axis=0)
    return -float(found.mean()), -gradient


def _cosines(known: Overlaps, weights: F64) -> tuple[F64, F64, F64]:
    """Cosine (n,) of each row's mix, the mix's length (n,), 0 where it vanishes, and Gw (n, m)."""
    pull = known.between @ weights
    length = np.sqrt(np.maximum(pull @ weights, 0))
    length[length < 1e-6 * weights.sum()] = 0  # below this, float32 predictions leave only rounding
    found = np.divide(known.true @ weights, length, out=np.zeros_like(length), where=length > 0)
    return found, length, pull
