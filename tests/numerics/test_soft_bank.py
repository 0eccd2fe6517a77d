from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from img2prompt_cache.numerics import soft_bank as module
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.numerics.soft_bank import bank_means, choose, distinct, soften


def vectors(n, seed, t=6):
    return unit(np.random.default_rng(seed).normal(size=(n, t)).astype(np.float32))


@pytest.mark.parametrize("values", [1, 20, 1 << 24])
@pytest.mark.parametrize("nearest", [0, 1, 5, 14, 99])
def test_the_means_are_what_their_formula_says(values, nearest, monkeypatch):
    monkeypatch.setattr(module, "VALUES", values)
    p, bank = vectors(9, 0), vectors(14, 1)
    cosines = p.astype(float) @ bank.T.astype(float)
    far = np.sort(cosines, axis=1)[:, -min(nearest or 14, 14)]
    cosines[cosines < far[:, None]] = -np.inf
    for temperature, found in zip((0.07, 0.4), bank_means(p, bank, (0.07, 0.4), nearest), strict=True):
        weights = softmax(cosines / temperature, axis=1)
        np.testing.assert_allclose(found, unit(weights @ bank), atol=1e-5)


@given(seed=st.integers(0, 99), weight=st.floats(0, 10), temperature=st.floats(1e-3, 10))
def test_softened_predictions_are_unit_vectors_that_do_not_depend_on_the_order_of_the_bank(
    seed, weight, temperature
):
    p, bank = vectors(5, seed), vectors(11, seed + 100)
    found = soften(p, bank, temperature, weight)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(soften(p, bank[::-1], temperature, weight), found, atol=1e-4)


def test_a_weight_of_0_leaves_predictions_as_they_are():
    p = vectors(5, 0)
    assert soften(p, vectors(3, 1), 0.04, 0.0) is p


def test_a_cold_bank_gives_the_nearest_prompt():
    p, bank = vectors(5, 0), vectors(40, 1)
    np.testing.assert_allclose(bank_means(p, bank, [1e-3])[0], bank[np.argmax(p @ bank.T, axis=1)], atol=0.05)


def noisy(n=200):
    """Predictions that lie around prompts of another fold, too."""
    prompts, rng = vectors(20, 0), np.random.default_rng(1)
    number = np.arange(n) % 20
    y = prompts[number]
    return unit(y + 0.4 * rng.normal(size=y.shape).astype(np.float32)), y, number


def test_what_is_chosen_helps_where_prompts_return_and_not_where_they_do_not():
    p, y, number = noisy()
    none = np.empty((0, y.shape[1]), np.float32)
    _, weight, tried = choose(p, y, np.arange(len(p)) // 20 % 5, none)  # all prompts are in all folds
    assert weight > 0
    best = max(record["cosine"] for record in tried)
    assert best > cosine(p, y).mean() + 0.01
    own_fold = number % 4  # all rows of a prompt are in one fold, so its bank lacks it
    _, weight, tried = choose(p, y, own_fold, none)
    assert tried[0]["cosine"] == pytest.approx(cosine(p, y).mean(), abs=1e-6)
    leaked = choose(p, y, own_fold, distinct(y, none))[2]
    assert max(each["cosine"] for each in leaked) > max(each["cosine"] for each in tried) + 0.02


def test_a_bank_has_each_own_prompt_once():
    y = vectors(4, 0)
    assert distinct(y[[0, 1, 1, 0, 3]], y[2:3]).shape == (4, 6)
