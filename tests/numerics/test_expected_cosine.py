from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import softmax
from scipy.stats import entropy

from img2prompt_cache.numerics import expected_cosine as module
from img2prompt_cache.numerics.expected_cosine import BANK_SIGNALS, bank_signals, fit_curve, stack_signals
from img2prompt_cache.numerics.metrics import unit

FINITE = st.floats(-1e6, 1e6, allow_nan=False, width=32)
SIGNALS = st.integers(1, 4).flatmap(
    lambda count: hnp.arrays(np.float64, st.tuples(st.integers(2, 30), st.just(count)), elements=FINITE)
)


def vectors(n: int, seed: int, t: int = 6) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, t)))


@pytest.mark.parametrize("values", [1, 40, 1 << 24])
@pytest.mark.parametrize("size", [1, 3, 14])
def test_the_signals_of_a_bank_are_what_their_formulas_say(values, size, monkeypatch):
    monkeypatch.setattr(module, "_VALUES", values)
    predictions, bank = vectors(9, 0), vectors(size, 1)
    cosines = predictions.astype(float) @ bank.T.astype(float)
    weights = softmax(cosines / 0.04, axis=1)
    found = bank_signals(predictions, bank)
    assert tuple(found) == BANK_SIGNALS
    np.testing.assert_allclose(found["nearest"], cosines.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(found["nearest_5"], np.sort(cosines)[:, -5:].mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(found["near"], (weights * cosines).sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(found["concentration"], -entropy(weights, axis=1), atol=1e-4)


@given(seed=st.integers(0, 99))
def test_signals_do_not_depend_on_the_order_of_the_bank_nor_of_the_rows(seed):
    predictions, bank = vectors(7, seed), vectors(11, seed + 100)
    found, turned = bank_signals(predictions, bank), bank_signals(predictions[::-1], bank[::-1])
    for name in BANK_SIGNALS:
        np.testing.assert_allclose(turned[name][::-1], found[name], atol=1e-4)


@settings(deadline=None)
@given(signals=SIGNALS, seed=st.integers(0, 99), data=st.data())
def test_the_curve_stays_among_cosines_and_never_falls_as_a_signal_rises(signals, seed, data):
    cosines = np.random.default_rng(seed).uniform(-1, 1, len(signals))
    curve = fit_curve(signals, cosines)
    assert (curve.weight >= 0).all()
    some = data.draw(hnp.arrays(np.float64, (5, signals.shape[1]), elements=FINITE))
    more = some + data.draw(hnp.arrays(np.float64, some.shape, elements=st.floats(0, 1e6)))
    lower, higher = curve(some), curve(more)
    assert (higher >= lower - 1e-9).all()  # sums are rounded
    assert (np.diff(curve.levels) >= 0).all()
    for each in (lower, higher, curve(signals)):
        assert (np.abs(each) <= 1).all()


@settings(deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(1, 4))
def test_the_curve_does_not_depend_on_the_order_of_rows_or_on_the_units_of_signals(seed, count):
    rng = np.random.default_rng(seed)
    signals, cosines = rng.normal(size=(40, count)), rng.uniform(0, 1, 40)
    expected = fit_curve(signals, cosines)(signals)
    order = rng.permutation(40)
    np.testing.assert_allclose(fit_curve(signals[order], cosines[order])(signals), expected, atol=1e-9)
    scaled = signals * rng.uniform(0.01, 100, count) + rng.normal(size=count)
    np.testing.assert_allclose(fit_curve(scaled, cosines)(scaled), expected, atol=1e-9)
    assert expected.mean() == pytest.approx(cosines.mean(), abs=0.02)


def test_the_curve_finds_the_signal_that_tells_and_gives_none_to_one_that_misleads():
    rng = np.random.default_rng(0)
    told = rng.normal(size=500)
    cosines = 0.5 + 0.1 * told + 0.01 * rng.normal(size=500)
    curve = fit_curve(np.stack([told, -told, np.full(500, 7.0)], axis=1), cosines)
    assert curve.weight[0] == pytest.approx(0.1, rel=0.05)
    assert curve.weight[1:].tolist() == [0, 0]
    beyond = curve(np.array([[100.0, 0, 7], [told.max(), 0, 7]]))
    assert beyond[0] == beyond[1]


def test_the_curve_bends_where_there_are_rows_enough_to_show_it():
    rng = np.random.default_rng(0)
    told = rng.uniform(-1, 1, 4000)
    true = np.where(told < 0, 0.2, 0.2 + 0.6 * told)
    found = fit_curve(told[:, None], true + 0.1 * rng.normal(size=4000))(told[:, None])
    assert np.abs(found - true).mean() < 0.02
    few = fit_curve(told[:40, None], true[:40])(told[:, None])
    assert np.abs(few - true).mean() > 0.03  # nearly straight


@pytest.mark.parametrize("signals", [np.empty((4, 0)), np.ones((4, 2)), np.full((4, 1), 1e-30)])
def test_without_a_signal_that_varies_the_curve_is_the_mean(signals):
    curve = fit_curve(signals, np.array([0.1, 0.2, 0.3, 0.6]))
    np.testing.assert_allclose(curve(signals), 0.3)


def test_signals_are_stacked_by_name():
    signals = {"a": np.array([1.0, 2]), "b": np.array([3.0, 4])}
    np.testing.assert_array_equal(stack_signals(signals, ("b", "a"), 2), [[3, 1], [4, 2]])
    assert stack_signals(signals, (), 2).shape == (2, 0)
