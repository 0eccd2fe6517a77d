"""Blending: non-negative weights for several predictions that maximise the mean cosine of their mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.row_blocks import in_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.row_blocks import Matrix

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]
    Fold = NDArray[np.int64]

ROWS = 8192
"""Rows processed at a time, to bound the memory."""

TIE = 1e-12
"""Mean cosines closer than this count as equal: they differ by rounding only."""

NEGLIGIBLE = 1e-6
"""A weight below this share of their sum is set to 0."""


@dataclass(frozen=True, slots=True, eq=False)
class InnerProducts:
    """Inner products of the members' predictions with the targets and with each other, for each row.

    They suffice to compute the cosine of any mix, so trying weights needs no pass over the predictions: for
    unit predictions p_j and a unit target y, the mix Σ w_j p_j has the cosine w·c / √(wᵀGw) with the target,
    where c_j = p_j·y and G_jk = p_j·p_k.

    Attributes
    ----------
    true : numpy.ndarray, float64, shape (n, m)
        c of each row.
    between : numpy.ndarray, float64, shape (n, m, m)
        G of each row.
    """

    true: F64
    between: F64

    def rows(self, which: NDArray[np.bool_]) -> InnerProducts:
        """Select rows by a mask of shape (n,)."""
        return InnerProducts(self.true[which], self.between[which])

    def without(self, member: int) -> InnerProducts:
        """Leave out one member, given by its number."""
        keep = np.arange(self.true.shape[1]) != member
        return InnerProducts(self.true[:, keep], self.between[:, keep][:, :, keep])


def inner_products(predictions: Sequence[Matrix], targets: Matrix) -> InnerProducts:
    """Compute the inner products of predictions with each other and with the targets.

    Parameters
    ----------
    predictions : sequence of m numpy.ndarray, float32, or of what is indexed like one, shape (n, t)
        Of any length; they are scaled to length 1.
    targets : numpy.ndarray, float32, or what is indexed like one, shape (n, t)
    """
    n, m = len(targets), len(predictions)
    products = np.empty((n, m + 1, m + 1))
    for rows, blocks in in_blocks([*predictions, targets], ROWS):
        vectors = np.stack([unit(each) for each in blocks], axis=1).astype(np.float64)
        products[rows] = vectors @ vectors.transpose(0, 2, 1)
    return InnerProducts(products[:, :m, m].copy(), products[:, :m, :m].copy())


def cosines(known: InnerProducts, weights: F64) -> F64:
    """Compute the cosine of each row's mix with its target, shape (n,); 0 where the mix is the zero vector.

    `weights` are (m,) for all rows, or (n, m).
    """
    return _cosines(known, weights)[0]


def best_weights(known: InnerProducts) -> F64:
    """Find the weights that maximise the mean cosine of the mix.

    Scaling all weights does not change the mean cosine, so w ≥ 0 is the only constraint of the search
    (L-BFGS-B with the exact gradient), and a member that does not help gets the weight 0. The mean cosine
    need not be concave: the search starts from equal weights and from each member alone, so the result is
    never worse than any of these.

    Parameters
    ----------
    known : InnerProducts
        For n ≥ 1 rows and m ≥ 1 members.

    Returns
    -------
    numpy.ndarray, float64, shape (m,)
        Each ≥ 0, summing to 1. Between equally good ones, those found from equal weights, then those from
        the first member, are preferred.
    """
    m = known.true.shape[1]
    best, highest = np.full(m, 1 / m), -np.inf
    for start in (best, *np.eye(m)):
        for weights in (start, _maximise(known, start)):
            reached = float(cosines(known, weights).mean())
            if reached > highest + TIE:
                best, highest = weights, reached
    return best


def cross_weights(known: InnerProducts, fold: Fold, inner: Sequence[InnerProducts] | None = None) -> F64:
    """Find, for each fold, weights that know nothing of it: shape (k, m).

    Parameters
    ----------
    known : InnerProducts
    fold : numpy.ndarray, int64, shape (n,)
        Fold of each row, 0…k−1, k ≥ 2.
    inner : sequence of InnerProducts, optional
        For each fold, the rows to find its weights on. If None, those of all other folds: that is right where
        the members were fitted on none of the rows, but not where each fold was predicted by members that
        were fitted on the others.
    """
    found = (known.rows(fold != number) for number in range(fold.max() + 1)) if inner is None else inner
    return np.array([best_weights(each) for each in found])


def mix(predictions: Sequence[F32], weights: F64) -> F32:
    """Compute the weighted mean of unit predictions, scaled to length 1: float32, shape (n, t).

    Parameters
    ----------
    predictions : sequence of m numpy.ndarray, float32, shape (n, t)
    weights : numpy.ndarray, float64, shape (m,), or (n, m) for separate weights in each row
    """
    return unit(_weighted_sum(predictions, weights))


def agreement(predictions: Sequence[F32], weights: F64) -> F64:
    """Compute how far members agree: the length (n,) of the weighted mean of their unit predictions.

    It is 1 where all are the same. The parameters are those of `mix`; in each row the weights sum to more
    than 0.
    """
    total = _weighted_sum(predictions, weights)
    lengths: F64 = np.sqrt(np.einsum("ij,ij->i", total, total)) / weights.sum(axis=-1)
    return lengths


def _weighted_sum(predictions: Sequence[F32], weights: F64) -> F64:
    total = np.zeros(predictions[0].shape)
    for member, each in enumerate(predictions):
        total += weights[..., member, None] * unit(each)
    return total


def mix_two(one: F32, other: F32, share: float) -> F32:
    """Compute the mean of two unit predictions (n, t), the first of weight `share`, scaled to length 1."""
    return mix([one, other], np.array([share, 1 - share]))


def best_share(one: F32, other: F32, targets: F32, shares: Sequence[float]) -> float:
    """Find the weight of the first of two predictions with the best mean cosine; of equal ones the largest.

    Parameters
    ----------
    one, other, targets : numpy.ndarray, float32, shape (n, t)
    shares : sequence of float
        Weights to try, from 0 to 1.
    """
    known = inner_products([one, other], targets)
    return max(shares, key=lambda share: (cosines(known, np.array([share, 1 - share])).mean(), share))


def ablation(
    known: InnerProducts, fold: Fold, weights: F64, inner: Sequence[InnerProducts] | None = None
) -> list[dict[str, float]]:
    """Measure what each member contributes: one record per member.

    Parameters
    ----------
    known : InnerProducts
        Of predictions for rows on which no member was fitted.
    fold : numpy.ndarray, int64, shape (n,)
        Grouped folds of these rows, 0…k−1, k ≥ 2.
    weights : numpy.ndarray, float64, shape (m,)
        Found on all of these rows.
    inner : sequence of InnerProducts, optional
        As for `cross_weights`.

    Returns
    -------
    list of dict
        `member`, its number; `weight`; `cosine`, the mean cosine of the member alone; `without`, the mean
        cosine of a blend of the others, with weights found on the other folds. A single member has no
        `without`.
    """
    records = [
        {"member": member, "weight": float(weights[member]), "cosine": float(cosines(known, alone).mean())}
        for member, alone in enumerate(np.eye(len(weights)))
    ]
    for member, record in enumerate(records if len(records) > 1 else ()):
        others = known.without(member)
        known_inside = None if inner is None else [each.without(member) for each in inner]
        found = cosines(others, cross_weights(others, fold, known_inside)[fold])
        record["without"] = float(found.mean())
    return records


def _maximise(known: InnerProducts, start: F64) -> F64:
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
    weights = np.where(found.x < NEGLIGIBLE * found.x.sum(), 0.0, found.x)
    scaled: F64 = weights / weights.sum()
    return scaled


def _loss(weights: F64, known: InnerProducts) -> tuple[float, F64]:
    """Compute minus the mean cosine, and its gradient −mean(c/s − (w·c) Gw/s³) with s = √(wᵀGw)."""
    found, length, pull = _cosines(known, weights)
    # A mix of length 0 has no direction, so it does not contribute to the gradient.
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    gradient = (scale[:, None] * known.true - (found * scale**2)[:, None] * pull).mean(axis=0)
    return -float(found.mean()), -gradient


def _cosines(known: InnerProducts, weights: F64) -> tuple[F64, F64, F64]:
    """Compute the cosine (n,) and the length (n,) of each row's mix, and Gw (n, m)."""
    pull = known.between @ weights if weights.ndim == 1 else np.einsum("njk,nk->nj", known.between, weights)
    length = np.sqrt(np.maximum((pull * weights).sum(axis=1), 0))
    length[length < 1e-6 * weights.sum(axis=-1)] = 0  # less is the rounding of float32 predictions
    found = np.divide((known.true * weights).sum(axis=1), length, out=np.zeros_like(length), where=length > 0)
    return found, length, pull
