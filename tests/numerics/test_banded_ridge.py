from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.linear_model import Ridge

from img2prompt_cache.numerics.banded_ridge import cross_validation_error, penalty_ratios
from img2prompt_cache.numerics.gram import Rows, accumulate, block_scale

BLOCKS = (6, 9)


def problem(n=150, noise=(0.0, 1.0), seed=0):
    """Two blocks of features: the targets plus noise, and noise alone."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, 6))
    x = np.hstack([y + noise[0] * rng.normal(size=(n, 6)), noise[1] * rng.normal(size=(n, 9))])
    return x.astype(np.float32), (y + 0.5 * rng.normal(size=(n, 6))).astype(np.float32), np.arange(n) % 3


def test_the_error_is_that_of_refitting():
    x, y, fold = problem()
    rng = np.random.default_rng(1)
    scale, alpha = rng.uniform(0.5, 2, 15), rng.uniform(0.5, 20, 15)
    error, _ = cross_validation_error(accumulate([Rows(x, y, fold)], 3), scale, alpha)
    scaled = x.astype(float) * scale / np.sqrt(alpha)
    oracle = [
        np.square(Ridge(1.0).fit(scaled[fold != k], y[fold != k]).predict(scaled[fold == k]) - y[fold == k])
        for k in range(3)
    ]
    assert error == pytest.approx(np.mean([part.mean() for part in oracle]), rel=1e-5)


def test_the_gradient_is_the_slope_of_the_error():
    by_fold = accumulate([Rows(*problem())], 3)
    alpha, scale = np.random.default_rng(1).uniform(0.5, 20, 15), np.ones(15)
    slope = approx_fprime(alpha, lambda at: cross_validation_error(by_fold, scale, at)[0], 1e-5)
    np.testing.assert_allclose(cross_validation_error(by_fold, scale, alpha)[1], slope, rtol=1e-3, atol=1e-8)


def test_a_backbone_of_noise_is_penalised_more_and_its_error_falls():
    by_fold = accumulate([Rows(*problem())], 3)
    scale = block_scale(sum(by_fold[1:], start=by_fold[0]), BLOCKS)
    found = penalty_ratios(by_fold, scale, BLOCKS)
    assert found.prod() == pytest.approx(1)
    assert found[1] > 10 * found[0]
    grid = np.geomspace(1e-3, 1e3, 25)
    alike = min(cross_validation_error(by_fold, scale, np.full(15, alpha))[0] for alpha in grid)
    banded = min(
        cross_validation_error(by_fold, scale, np.repeat(found, BLOCKS) * alpha)[0] for alpha in grid
    )
    assert banded < 0.99 * alike


def test_one_backbone_needs_no_search():
    assert penalty_ratios([], np.ones(3), (3,)).tolist() == [1.0]


def test_constant_backbones_are_harmless():
    x, y, fold = problem()
    x[:, 6:] = 2.0
    by_fold = accumulate([Rows(x, y, fold)], 3)
    scale = block_scale(sum(by_fold[1:], start=by_fold[0]), BLOCKS)
    assert np.isfinite(penalty_ratios(by_fold, scale, BLOCKS)).all()
