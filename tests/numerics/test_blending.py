from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from img2prompt_cache.numerics.blending import (
    _loss,
    ablation,
    best_share,
    best_weights,
    cosines,
    cross_weights,
    inner_products,
    mix,
    mix_two,
)
from img2prompt_cache.numerics.metrics import cosine, mean_cosine, unit


def problem(seed, m, n=40, t=12):
    """Targets, and predictions of m members of unlike quality that share some of their mistakes."""
    rng = np.random.default_rng(seed)
    targets = unit(rng.normal(size=(n, t)))
    shared = rng.normal(size=(n, t))
    predictions = [
        unit(rng.uniform(0.2, 1) * targets + 0.1 * shared + rng.uniform(0.1, 0.4) * rng.normal(size=(n, t)))
        for _ in range(m)
    ]
    return predictions, targets


problems = st.tuples(st.integers(0, 10_000), st.integers(2, 4))


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_no_point_of_a_grid_is_better(seed, m):
    predictions, targets = problem(seed, m)
    weights = best_weights(inner_products(predictions, targets))
    grid = [w for w in itertools.product(np.linspace(0, 1, 41), repeat=m) if sum(w) == pytest.approx(1)]
    best = max(grid, key=lambda w: mean_cosine(mix(predictions, np.array(w)), targets))
    found = mean_cosine(mix(predictions, weights), targets)
    assert found >= mean_cosine(mix(predictions, np.array(best)), targets) - 1e-7
    np.testing.assert_allclose(weights, best, atol=0.05)


@given(problems)
@settings(max_examples=30, deadline=None)
def test_weights_are_a_mean_never_worse_than_the_best_member(drawn):
    predictions, targets = problem(*drawn)
    weights = best_weights(inner_products(predictions, targets))
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    singles = [mean_cosine(each, targets) for each in predictions]
    assert mean_cosine(mix(predictions, weights), targets) >= max(singles) - 1e-6


@given(problems, st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_members_and_their_scale_do_not_matter(drawn, random):
    predictions, targets = problem(*drawn)
    weights = best_weights(inner_products(predictions, targets))
    order = list(range(len(predictions)))
    random.shuffle(order)
    other = [np.float32(random.uniform(0.01, 100)) * predictions[member] for member in order]
    np.testing.assert_allclose(best_weights(inner_products(other, targets)), weights[order], atol=1e-4)


def test_the_gradient_is_exact():
    known = inner_products(*problem(0, 4))
    weights = np.array([0.1, 0.5, 0.2, 0.4])
    numeric = approx_fprime(weights, lambda w: _loss(w, known)[0], 1e-7)
    np.testing.assert_allclose(_loss(weights, known)[1], numeric, atol=1e-6)


def test_cosines_of_overlaps_are_those_of_the_mix():
    predictions, targets = problem(1, 3)
    known = inner_products(predictions, targets)
    each = np.random.default_rng(0).uniform(size=(len(targets), 3))
    for weights in (each[0], each):
        expected = cosine(mix(predictions, weights), targets)
        np.testing.assert_allclose(cosines(known, weights), expected, atol=1e-6)


def test_a_member_that_does_not_help_gets_nothing():
    predictions, targets = problem(2, 2)
    noise = unit(np.random.default_rng(5).normal(size=targets.shape) - targets)
    assert best_weights(inner_products([predictions[0], noise, predictions[1]], targets))[1] == 0


def test_members_alike_share_and_members_that_cancel_are_survived():
    (one, _), targets = problem(3, 2)
    np.testing.assert_allclose(best_weights(inner_products([one, one], targets)), 0.5)
    np.testing.assert_array_equal(best_weights(inner_products([one, -one], targets)), [1, 0])
    assert best_weights(inner_products([one], targets)) == 1
    np.testing.assert_array_equal(cosines(inner_products([one, -one], targets), np.array([0.5, 0.5])), 0)


def test_each_fold_is_mixed_by_weights_of_the_others():
    predictions, targets = problem(4, 3)
    fold = np.arange(len(targets)) % 4
    found = cross_weights(inner_products(predictions, targets), fold)
    for number in range(4):
        rest = fold != number
        expected = best_weights(inner_products([each[rest] for each in predictions], targets[rest]))
        np.testing.assert_allclose(found[number], expected, atol=1e-6)
    changed = targets.copy()
    changed[fold == 2] = -changed[fold == 2]  # the weights of a fold do not know its targets
    other = cross_weights(inner_products(predictions, changed), fold)
    np.testing.assert_array_equal(other[2], found[2])
    assert not np.allclose(other[1], found[1])


def test_ablation_is_a_blend_of_the_others():
    predictions, targets = problem(5, 3)
    fold = np.arange(len(targets)) % 4
    known = inner_products(predictions, targets)
    weights = best_weights(known)
    records = ablation(known, fold, weights)
    assert [record["member"] for record in records] == [0, 1, 2]
    for record, single in zip(records, predictions, strict=True):
        assert record["cosine"] == pytest.approx(mean_cosine(single, targets), abs=1e-6)
    rest = [predictions[0], predictions[2]]
    by_fold = cross_weights(inner_products(rest, targets), fold)
    assert records[1]["without"] == pytest.approx(mean_cosine(mix(rest, by_fold[fold]), targets), abs=1e-6)
    assert "without" not in ablation(inner_products(predictions[:1], targets), fold, np.ones(1))[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_share_of_two_is_the_best_of_those_tried(seed):
    (one, other), targets = problem(seed, 2)
    shares = [step / 20 for step in range(21)]
    found = [mean_cosine(unit(share * one + (1 - share) * other), targets) for share in shares]
    best = best_share(one, other, targets, shares)
    assert best == shares[int(np.argmax(found))]
    assert mean_cosine(mix_two(one, other, best), targets) == pytest.approx(max(found), abs=1e-6)


def test_of_equal_shares_the_largest_is_taken():
    (one,), targets = problem(0, 1)
    assert best_share(one, one, targets, [0.0, 0.5, 1.0]) == 1.0
