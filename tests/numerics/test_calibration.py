from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr

from img2prompt_cache.numerics.calibration import calibration_error, coverage, rank_correlation

COSINES = st.sampled_from([step / 8 for step in range(-8, 9)])
PAIRS = hnp.arrays(np.float64, st.tuples(st.integers(2, 50), st.just(2)), elements=COSINES)


@given(PAIRS)
def test_the_rank_correlation_is_spearmans(pairs):
    expected, true = pairs.T
    if np.ptp(expected) == 0 or np.ptp(true) == 0:
        assert rank_correlation(expected, true) is None
    else:
        assert rank_correlation(expected, true) == pytest.approx(spearmanr(expected, true)[0], abs=1e-9)


@given(PAIRS, st.integers(0, 99))
def test_the_calibration_error_does_not_depend_on_the_order_of_rows(pairs, seed):
    order = np.random.default_rng(seed).permutation(len(pairs))
    error = calibration_error(*pairs.T)
    assert calibration_error(*pairs[order].T) == pytest.approx(error, abs=1e-12)
    difference = pairs[:, 0] - pairs[:, 1]
    assert abs(difference.mean()) - 1e-12 <= error <= np.abs(difference).mean() + 1e-12


def test_the_calibration_error_is_the_mean_distance_of_the_bins():
    expected = np.arange(100) / 100
    assert calibration_error(expected, expected) == 0
    noise = np.tile([0.1, -0.1], 50)
    assert calibration_error(expected, expected + noise) == pytest.approx(0, abs=1e-12)
    assert calibration_error(expected, expected + 0.05) == pytest.approx(0.05)
    half = np.where(expected < 0.5, 0.1, -0.3)  # over the whole it would be -0.1
    assert calibration_error(expected, expected + half) == pytest.approx(0.2)
    assert calibration_error(np.full(4, 0.5), np.array([0.1, 0.9, 0.6, 0.8])) == pytest.approx(0.1)


def test_coverage_tells_what_is_left_at_each_threshold():
    found = coverage(np.array([0.15, 0.25, 0.35, 0.05]), np.array([0.1, 0.2, 0.6, -1]))
    assert found == [
        {"min_expected": 0.1, "share": 0.75, "cosine": pytest.approx(0.3)},
        {"min_expected": 0.2, "share": 0.5, "cosine": pytest.approx(0.4)},
        {"min_expected": 0.3, "share": 0.25, "cosine": pytest.approx(0.6)},
    ]
    assert coverage(np.zeros(3), np.ones(3)) == []
