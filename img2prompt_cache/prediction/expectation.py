"""Expectations: the cosine that each prediction of a run is expected to have with the true embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.errors import check
from img2prompt_cache.numerics.expected_cosine import BANK_SIGNALS, Curve, bank_signals, stack_signals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head, SureTargets

    F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """What to expect of the predictions of a head.

    Attributes
    ----------
    signals : tuple of str, length s
        Signals of the head, and of the bank; none where the expected cosine is the same for all.
    curve : Curve
        Of these signals.
    bank : numpy.ndarray, float16, shape (m, t)
        Embeddings of prompts that the head was fitted on; empty where no signal needs them.
    """

    signals: tuple[str, ...]
    curve: Curve
    bank: NDArray[np.float16]

    def expect(self, predicted: SureTargets) -> F32:
        """Compute the expected cosine of each prediction.

        Parameters
        ----------
        predicted : SureTargets
            From `Head.predict_with_signals`.

        Returns
        -------
        numpy.ndarray, float32, shape (n,), in −1…1
        """
        found = dict(predicted.signals)
        if len(self.bank):
            found |= bank_signals(predicted.unsoftened, self.bank.astype(np.float32))
        return self.curve(stack_signals(found, self.signals, len(predicted.vectors))).astype(np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        """Give the arrays, for `expected.safetensors`."""
        curve = self.curve
        found: dict[str, NDArray[Any]] = {"knots": curve.knots, "levels": curve.levels}
        if self.signals:
            found |= {"low": curve.low, "high": curve.high, "weight": curve.weight}
        if len(self.bank):
            found["bank"] = self.bank
        return found

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]], signals: tuple[str, ...], head: Head) -> Self:
        """Take the arrays back.

        Raises
        ------
        ValueError
            If they do not fit each other, the signals or the head.
        """
        width = (len(signals),)
        low, high, weight = (_floats(state, name, width) for name in ("low", "high", "weight"))
        bank = state.get("bank", np.empty((0, 0), np.float16))
        check(bank.ndim == 2 and bank.dtype == np.float16, "'bank' is no matrix of float16")
        check(bool(np.isfinite(bank).all()), "'bank' holds NaN or infinity")
        known = {*head.signals, *(BANK_SIGNALS if len(bank) else ())}
        for name in signals:
            check(name in known, f"{name} is no signal of it")
        check(bool((weight >= 0).all() and (low <= high).all()), "a weight is below 0, or a range is empty")
        knots = _floats(state, "knots", state.get("knots", np.zeros(1)).shape[:1])
        levels = _floats(state, "levels", knots.shape)
        check(len(knots) > 0 and bool((np.diff(knots) > 0).all()), "'knots' do not rise")
        check(
            bool((np.diff(levels) >= 0).all() and (np.abs(levels) <= 1).all()),
            "'levels' are no cosines that rise",
        )
        return cls(signals, Curve(low, high, weight, knots, levels), bank)


def predict_expected(head: Head, X: Any, expectation: Expectation | None) -> tuple[F32, F32 | None]:
    """Predict, and say what to expect: the unit vectors (n, t), and their expected cosines (n,), or None."""
    if expectation is None:
        return head.predict(X), None
    found = head.predict_with_signals(X)
    return found.vectors, expectation.expect(found)


def _floats(state: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    values = state.get(name, np.empty(0))
    check(values.shape == shape and values.dtype == np.float64, f"{name!r} is not of shape {shape}")
    check(bool(np.isfinite(values).all()), f"{name!r} holds NaN or infinity")
    return values
