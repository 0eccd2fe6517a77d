from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from img2prompt_cache.numerics.kernel_ridge import normalise_blocks
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.numerics.neighbour_gains import learn_gains, left_out_cosine, weigh_blocks

WIDTHS = (5, 3, 4)


def problem(n=40, seed=0):
    """The target is told by the first block, and a little by the second; the third is noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, sum(WIDTHS))).astype(np.float32)
    y = X[:, :4] + 0.3 * X[:, 5:6] + 0.3 * rng.normal(size=(n, 4))
    return normalise_blocks(X, WIDTHS), unit(y), np.arange(n) // 2


def cosines_of(units):
    return [(part @ part.T).astype(np.float64) for part in np.split(units, np.cumsum(WIDTHS)[:-1], axis=1)]


def brute_force(units, y, groups, gains):
    """Predict each row from the rows of other groups, one at a time."""
    blocks = np.split(units.astype(np.float64), np.cumsum(WIDTHS)[:-1], axis=1)
    scores = []
    for row in range(len(y)):
        other = groups != groups[row]
        logits = sum(g * (block[other] @ block[row]) for g, block in zip(gains, blocks, strict=True))
        pred = np.exp(logits) @ y[other] / np.exp(logits).sum()
        scores.append(cosine(pred[None], y[row : row + 1])[0])
    return np.mean(scores)


def test_the_score_is_that_of_rows_predicted_one_at_a_time():
    units, y, groups = problem()
    gains = np.array([4.0, 1.0, 0.5])
    score, _ = left_out_cosine(cosines_of(units), y.astype(np.float64), groups, gains)
    assert score == pytest.approx(brute_force(units, y, groups, gains), abs=1e-6)


def test_the_gradient_is_exact():
    units, y, groups = problem()
    cosines, y64, gains = cosines_of(units), y.astype(np.float64), np.array([4.0, 1.0, 0.5])
    _, slope = left_out_cosine(cosines, y64, groups, gains)
    expected = approx_fprime(gains, lambda g: left_out_cosine(cosines, y64, groups, g)[0], 1e-6)
    np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_learned_gains_predict_better_than_equal_ones_and_noise_gets_little():
    units, y, groups = problem(200)
    gains = learn_gains(units, y, groups, WIDTHS)
    assert gains.mean() == pytest.approx(1)
    assert gains[0] > gains[1] > gains[2]
    assert gains[2] < 0.05
    new, true, others = problem(200, seed=1)
    found = {
        name: brute_force(new, true, others, 5 * each)
        for name, each in (("equal", 1), ("learned", gains))
        for each in [np.broadcast_to(each, 3)]
    }
    assert found["learned"] > found["equal"] + 0.05


def test_the_order_of_rows_does_not_matter():
    units, y, groups = problem(100)
    order = np.random.default_rng(3).permutation(100)
    permuted = learn_gains(units[order], y[order], groups[order], WIDTHS)
    np.testing.assert_allclose(permuted, learn_gains(units, y, groups, WIDTHS), atol=1e-3)


def test_rows_of_a_group_do_not_vouch_for_a_block_that_tells_only_them_apart():
    # Twins have equal targets and equal values in a block of noise: across groups it tells nothing.
    units, y, _ = problem(100)
    units, y, groups = np.repeat(units, 2, axis=0), np.repeat(y, 2, axis=0), np.arange(200) // 2
    grouped, alone = learn_gains(units, y, groups, WIDTHS), learn_gains(units, y, np.arange(200), WIDTHS)
    assert grouped[2] < 0.05 < alone[2]


def test_one_block_or_one_group_leaves_nothing_to_learn():
    units, y, groups = problem()
    assert learn_gains(units, y, groups, [12]).tolist() == [1.0]
    assert learn_gains(units, y, np.zeros(len(y), np.int64), WIDTHS).tolist() == [1.0] * 3


def test_a_block_of_zeros_is_borne():
    units, y, groups = problem()
    units[:, 5:8] = 0
    gains = learn_gains(units, y, groups, WIDTHS)
    assert np.isfinite(gains).all()
    assert np.isfinite(weigh_blocks(units, WIDTHS, gains)).all()


@given(st.lists(st.floats(0.01, 200), min_size=3, max_size=3))
def test_weighed_rows_have_the_weighted_mean_of_cosines_as_inner_products(gains):
    units, _, _ = problem(10)
    weighed = weigh_blocks(units, WIDTHS, np.array(gains))
    expected = np.average(cosines_of(units), axis=0, weights=gains)
    np.testing.assert_allclose(weighed @ weighed.T, expected, atol=1e-5)


@given(st.floats(1e-6, 1e6))
def test_equal_gains_divide_by_the_root_of_their_number_to_the_last_bit(gain):
    units, _, _ = problem(10)
    assert np.array_equal(weigh_blocks(units, WIDTHS, np.full(3, gain)), units / np.float32(np.sqrt(3)))
