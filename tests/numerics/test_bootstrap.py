from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm

from img2prompt_cache.numerics import bootstrap as module
from img2prompt_cache.numerics.bootstrap import (
    effective_groups,
    holm,
    interval,
    p_value,
    paired_difference,
    resampled_means,
    split_widening,
    standard_error,
)
from img2prompt_cache.numerics.metrics import cosine, unit

values_and_groups = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(2, 40), st.integers(2, 12))
)


def draw(seed, rows, groups):
    """Values and groups, of which there are at least two."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=rows), np.concatenate([[3, 70], rng.integers(0, groups, rows - 2) * 7])


@given(values_and_groups)
def test_whole_groups_are_drawn_and_the_mean_is_over_their_rows(drawn):
    values, groups = draw(*drawn)
    labels = np.unique(groups)
    rng = np.random.default_rng(5)
    wanted = []
    for _ in range(7):
        again = labels[rng.integers(len(labels), size=len(labels))]
        wanted.append(np.concatenate([values[groups == label] for label in again]).mean())
    np.testing.assert_allclose(resampled_means(values, groups, 7, 5), wanted, atol=1e-12)


def test_a_row_a_group_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).exponential(size=300)
    got = interval(values, np.arange(300), 20_000)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    np.testing.assert_allclose(got, theirs.confidence_interval, atol=0.005)
    assert got[1] - got[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(300), rel=0.05)


def test_rows_that_say_the_same_as_others_of_their_group_add_no_certainty():
    values = np.random.default_rng(0).normal(size=50)
    once = interval(values, np.arange(50))
    assert interval(np.repeat(values, 20), np.repeat(np.arange(50), 20)) == pytest.approx(once)
    alone = interval(np.repeat(values, 20), np.arange(1000))
    assert alone[1] - alone[0] < 0.3 * (once[1] - once[0])


@given(values_and_groups, st.floats(-2, 2))
def test_the_interval_moves_and_turns_with_the_values(drawn, shift):
    values, groups = draw(*drawn)
    low, high = interval(values, groups, 200)
    assert low <= high
    assert values.min() - 1e-9 <= low
    assert high <= values.max() + 1e-9
    np.testing.assert_allclose(interval(-values, groups, 200), (-high, -low), atol=1e-9)
    np.testing.assert_allclose(interval(values + shift, groups, 200), (low + shift, high + shift), atol=1e-9)
    np.testing.assert_allclose(interval(np.full_like(values, shift), groups, 200), shift, atol=1e-12)


@given(values_and_groups, st.integers(0, 99))
def test_groups_have_no_names(drawn, factor):
    values, groups = draw(*drawn)
    assert interval(values, groups, 200) == interval(values, groups * (factor + 1) + factor, 200)


@given(st.integers(0, 99), st.integers(5, 40))
def test_symmetric_values_have_their_mean_inside(seed, half):
    one = np.random.default_rng(seed).normal(size=half)
    low, high = interval(np.concatenate([one, -one]), np.arange(2 * half))
    assert low < 0 < high
    # Even in a narrow middle: the resampled means are centred on the mean.
    low, high = interval(np.concatenate([one, -one]), np.arange(2 * half), level=0.2)
    assert low < 0 < high


def test_it_covers_the_truth_as_often_as_it_says_where_rows_of_a_group_are_alike():
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = np.arange(400) % 60
        low, high = interval(rng.normal(size=60)[groups] + 0.3 * rng.normal(size=400), groups, 500)
        hits += low <= 0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_of_one_group_nothing_is_known():
    assert interval(np.arange(4.0), np.full(4, 7)) is None
    assert interval(np.arange(0.0), np.arange(0)) is None


def test_effective_groups_are_the_groups_where_they_are_equal():
    assert effective_groups(np.repeat(np.arange(8), 3)) == pytest.approx(8)
    assert effective_groups(np.array([5, 5, 5, 5])) == 1
    assert effective_groups(np.array([], int)) == 0
    # One group of half of the rows, and a hundred single ones.
    mixed = np.concatenate([np.zeros(100, int), np.arange(1, 101)])
    assert effective_groups(mixed) == pytest.approx(200**2 / (100**2 + 100))


@given(values_and_groups)
def test_effective_groups_lie_between_one_and_all(drawn):
    _, groups = draw(*drawn)
    assert 1 <= effective_groups(groups) <= len(np.unique(groups)) + 1e-9


def test_memory_is_bounded_by_blocks_that_change_nothing(monkeypatch):
    values, groups = draw(1, 40, 12)
    whole = resampled_means(values, groups)
    monkeypatch.setattr(module, "BLOCK", 50)
    np.testing.assert_array_equal(resampled_means(values, groups), whole)


@given(values_and_groups, st.floats(-2, 2))
def test_paired_differences(drawn, shift):
    one, groups = draw(*drawn)
    other = np.random.default_rng(1).normal(size=len(one))
    difference, (low, high) = paired_difference(one, other, groups, 200)
    assert difference == pytest.approx(one.mean() - other.mean())
    turned, (lower, higher) = paired_difference(other, one, groups, 200)
    assert turned == pytest.approx(-difference)
    np.testing.assert_allclose((lower, higher), (-high, -low), atol=1e-9)
    # The same groups are drawn for both, so this is the difference of the means draw by draw.
    means = resampled_means(one, groups, 200) - resampled_means(other, groups, 200)
    np.testing.assert_allclose((low, high), np.quantile(means, [0.025, 0.975]), atol=1e-9)
    constant, inside = paired_difference(one + shift, one, groups, 200)
    assert constant == pytest.approx(shift, abs=1e-9)
    np.testing.assert_allclose(inside, shift, atol=1e-9)


def test_pairing_tells_runs_apart_that_intervals_of_their_own_do_not():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=200)
    one, other = hard + 0.1 + 0.05 * rng.normal(size=200), hard
    rows = np.arange(200)
    assert interval(one, rows)[0] < interval(other, rows)[1]
    assert paired_difference(one, other, rows)[1][0] > 0.08


def test_the_standard_error_is_that_of_resampled_means():
    values, groups = draw(3, 200, 40)
    spread = resampled_means(values, groups, 20_000).std()
    assert standard_error(values, groups) == pytest.approx(spread, rel=0.15)
    alone = np.arange(200)
    assert standard_error(values, alone) == pytest.approx(values.std() / np.sqrt(200))


def test_the_widening_is_that_of_nadeau_and_bengio():
    assert split_widening(np.arange(300) % 5, 300) == pytest.approx(1.5)
    assert split_widening(np.zeros(60, int), 300) == pytest.approx(np.sqrt(1.25))
    rows, rng = np.arange(100), np.random.default_rng(0)
    one, other = rng.normal(size=100), rng.normal(size=100)
    middle, (low, high) = paired_difference(one, other, rows)
    same, wider = paired_difference(one, other, rows, widening=1.5)
    assert same == middle
    np.testing.assert_allclose(wider, [middle + 1.5 * (low - middle), middle + 1.5 * (high - middle)])
    assert paired_difference(one, other, np.zeros(100, int), widening=1.5)[1] is None


def two_equal_heads_by_folds(seed, n=300, width=24, folds=5):
    """Differences, by folds, of the cosines of two ridge heads that are equally good; and the folds."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, width))
    y = unit(truth[:, :16] + 0.7 * rng.normal(size=(n, 16)))
    fold, found = rng.permutation(n) % folds, np.zeros((2, n))
    for head in range(2):
        X = truth + 1.5 * rng.normal(size=truth.shape)
        for number in range(folds):
            train, held = fold != number, fold == number
            weights = np.linalg.solve(X[train].T @ X[train] + np.eye(width), X[train].T @ y[train])
            found[head, held] = cosine(X[held] @ weights, y[held])
    return found[0] - found[1], fold


def test_by_folds_only_the_wider_interval_covers_as_often_as_it_says():
    rows, hits = np.arange(300), np.zeros(2)
    for seed in range(200):
        difference, fold = two_equal_heads_by_folds(seed)
        for place, factor in enumerate((1.0, split_widening(fold, 300))):
            _, (low, high) = paired_difference(difference, np.zeros(300), rows, 300, widening=factor)
            hits[place] += low <= 0 <= high
    plain, wide = hits / 200
    assert plain < 0.92
    assert wide >= 0.94


@given(st.integers(0, 99))
def test_p_is_below_a_twentieth_where_zero_is_outside(seed):
    rng = np.random.default_rng(seed)
    values, rows = rng.normal(size=80) + rng.normal(), np.arange(80)
    z = values.mean() / (1.2 * values.std() / np.sqrt(80))
    assert p_value(values, rows, 1.2) == pytest.approx(2 * norm.sf(abs(z)))
    assert p_value(values, np.zeros(80, int)) is None
    assert p_value(np.zeros(80), rows) == 1
    assert p_value(np.ones(80), rows) == 0


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_their_order():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_among_many_equal_runs_a_false_difference_is_rare():
    rng, rows, false = np.random.default_rng(0), np.arange(100), np.zeros(2)
    for _ in range(300):
        p = [p_value(rng.normal(size=100), rows) for _ in range(10)]
        false += [min(p) < 0.05, min(holm(p)) < 0.05]
    assert false[0] / 300 > 0.3
    assert false[1] / 300 < 0.08
