from __future__ import annotations

import numpy as np

from img2prompt_cache.data.feature_blocks import BlockWidth
from img2prompt_cache.numerics.standardise import mean_and_scale

X = np.random.default_rng(0).normal(3, [1, 2, 4, 8, 0], (50, 5)).astype(np.float32)


def test_columns_get_mean_zero_and_deviation_one_and_constant_ones_stay() -> None:
    mean, scale = mean_and_scale(X)
    Z = (X - mean) / scale
    np.testing.assert_allclose(Z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(Z.std(0), [1, 1, 1, 1, 0], atol=1e-5)
    assert scale[4] == 1
    for found, expected in zip(mean_and_scale(X, (2, 3)), (mean, scale), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_columns_of_a_block_that_is_not_standardised_keep_their_relative_scales() -> None:
    widths = (BlockWidth(1), BlockWidth(3, standardise=False), BlockWidth(1))
    mean, scale = mean_and_scale(X, widths)
    np.testing.assert_allclose(mean, X.mean(0, dtype=np.float64), rtol=1e-6)
    assert scale[0] == mean_and_scale(X)[1][0]
    assert scale[4] == 1
    np.testing.assert_allclose(scale[1:4], np.sqrt(X[:, 1:4].var(0, dtype=np.float64).mean()), rtol=1e-6)
    constant = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(mean_and_scale(constant, (BlockWidth(3, standardise=False),))[1], 1)
