"""The cosine that a prediction is expected to have with its target, from signals of how sure it is.

The expected cosine is f(Σ w_s clip(x_s, low_s, high_s)) over signals x_s that are higher where a prediction
is surer. The weights w_s are at least 0, and f is piecewise linear and never falls: so the expected cosine
never falls as a signal rises. Signals are cut to the range that they had when the weights were fitted.
`benchmarks/expected.py` compares this with other models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]

BANK_SIGNALS = ("nearest", "nearest_5", "near", "concentration")
"""The signals of `bank_signals`."""

PENALTY = 10.0
"""L2 penalty on the weights of standardised signals, which counts as much as so many rows."""

PIECES, STRAIGHTNESS = 5, 30.0
"""Pieces of f, and the penalty that draws their slopes towards 1, which counts as so many rows for each."""

NEAREST_AVERAGED = 5
"""Prompts whose mean cosine is the signal ``nearest_5``."""
CONCENTRATION_TEMPERATURE = 0.04
"""Of the softmax over the bank: found best for soft banks; see `soft_bank`."""
_VALUES = 1 << 24  # similarities that are in memory at a time


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A monotone function of signals.

    Attributes
    ----------
    low, high, weight : numpy.ndarray, float64, shape (s,)
        The range of each signal, and its weight.
    knots, levels : numpy.ndarray, float64, shape (k,)
        The values of f at increasing sums of weighted signals; it is linear in between, and flat beyond.
    """

    low: F64
    high: F64
    weight: F64
    knots: F64
    levels: F64

    def __call__(self, signals: F64) -> F64:
        """Compute the expected cosines (n,), in −1…1, of signals (n, s)."""
        return np.interp(np.clip(signals, self.low, self.high) @ self.weight, self.knots, self.levels)


def fit_curve(signals: F64, cosines: F64) -> Curve:
    """Fit weights by penalised least squares, and then f, which corrects their level where that is off.

    Parameters
    ----------
    signals : numpy.ndarray, float64, shape (n, s)
        Each higher where a prediction is surer; n ≥ 1. Without any (s = 0) the curve is the mean cosine.
    cosines : numpy.ndarray, float64, shape (n,)
    """
    middle, scale = signals.mean(axis=0), signals.std(axis=0)
    told = scale > 1e-9 * (1.0 + np.abs(middle))  # a constant signal says nothing
    scale[~told] = 1.0
    standard = np.where(told, (signals - middle) / scale, 0.0)
    weight = _not_negative(standard, cosines, np.full(signals.shape[1], np.sqrt(PENALTY)), 0.0) / scale
    sums = signals @ weight
    knots = np.unique(np.quantile(sums, np.linspace(0, 1, PIECES + 1)))
    steps = np.diff(knots)
    ramps = np.clip(sums[:, None], knots[:-1], knots[1:]) - knots[:-1]
    slope = _not_negative(ramps, cosines, np.sqrt(STRAIGHTNESS) * steps, 1.0)
    start = float(cosines.mean() - ramps.mean(axis=0) @ slope)
    levels = np.clip(start + np.concatenate([[0.0], np.cumsum(slope * steps)]), -1.0, 1.0)
    return Curve(signals.min(axis=0), signals.max(axis=0), weight, knots, levels)


def _not_negative(columns: F64, y: F64, penalty: F64, towards: float) -> F64:
    """Fit coefficients (s,) of at least 0 and an intercept; penalties (s,) draw them towards a value."""
    from scipy.optimize import nnls

    if not columns.shape[1]:
        return np.empty(0)
    rows = np.vstack([columns - columns.mean(axis=0), np.diag(penalty)])
    found: F64 = nnls(rows, np.concatenate([y - y.mean(), penalty * towards]))[0]
    return found


def bank_signals(predictions: F32, bank: F32) -> dict[str, F64]:
    """Say how near predictions are to the prompts of a bank.

    Parameters
    ----------
    predictions : numpy.ndarray, float32, shape (n, t)
        Unit-norm.
    bank : numpy.ndarray, float32, shape (m, t)
        Unit-norm embeddings of other prompts than the true ones, m ≥ 1.

    Returns
    -------
    dict of str to numpy.ndarray, float64, shape (n,)
        `nearest`, the cosine of the nearest prompt; `nearest_5`, the mean of the five nearest; `near`, the
        mean of all, weighted by softmax(cosine / 0.04); and `concentration`, the negative entropy of these
        weights: 0 where one prompt has all the weight.
    """
    found = {name: np.empty(len(predictions)) for name in BANK_SIGNALS}
    count = min(NEAREST_AVERAGED, len(bank))
    step = max(1, _VALUES // len(bank))
    for start in range(0, len(predictions), step):
        rows = slice(start, start + step)
        cosines = predictions[rows] @ bank.T
        top = np.partition(cosines, len(bank) - count, axis=1)[:, len(bank) - count :].astype(np.float64)
        highest = top.max(axis=1)
        found["nearest"][rows] = highest
        found["nearest_5"][rows] = top.mean(axis=1)
        logits = (cosines - highest[:, None].astype(np.float32)) / np.float32(CONCENTRATION_TEMPERATURE)
        weights = np.exp(logits)
        total = weights.sum(axis=1, dtype=np.float64)
        found["near"][rows] = np.einsum("ij,ij->i", weights, cosines, dtype=np.float64) / total
        found["concentration"][rows] = np.einsum(
            "ij,ij->i", weights, logits, dtype=np.float64
        ) / total - np.log(total)
    return found


def stack_signals(signals: Mapping[str, F64], names: tuple[str, ...], rows: int) -> F64:
    """Put the signals of these names side by side: float64, shape (rows, s)."""
    return np.stack([signals[name] for name in names], axis=1) if names else np.empty((rows, 0))
