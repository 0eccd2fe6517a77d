"""Fitting in the span of the rows gives what fitting in all columns gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from img2prompt_cache.numerics.row_space import expand_coefficients, reduce_blocks


def data(n: int, p: int, t: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n * 1000 + p)
    return (rng.normal(size=(n, p)) + 2).astype(np.float32), rng.normal(size=(n, t)).astype(np.float32)


@pytest.mark.parametrize("blocks", [(40,), (40, 5), (5, 40, 30)])
def test_ridge_in_the_span_is_ridge(blocks: tuple[int, ...]) -> None:
    X, y = data(12, sum(blocks))
    Z, widths, bases, mean = reduce_blocks(X, blocks)
    assert Z.shape[1] < X.shape[1]
    assert [basis is None for basis in bases] == [width <= 12 for width in blocks]
    fold = slice(0, 8)
    want = Ridge(alpha=0.7).fit(X[fold], y[fold])
    got = Ridge(alpha=0.7).fit(Z[fold], y[fold])
    coef = expand_coefficients(got.coef_.T.astype(np.float32), widths, bases)
    np.testing.assert_allclose(coef, want.coef_.T, atol=1e-4)
    np.testing.assert_allclose((X - mean) @ coef + got.intercept_, want.predict(X), atol=1e-4)


@settings(deadline=None)
@given(n=st.integers(2, 20), widths=st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_distances_are_kept(n: int, widths: list[int]) -> None:
    X, _ = data(n, sum(widths))
    Z, new, _, mean = reduce_blocks(X, widths)
    assert sum(new) == Z.shape[1] <= X.shape[1]
    np.testing.assert_allclose(Z @ Z.T, (X - mean) @ (X - mean).T, rtol=1e-3, atol=1e-2)


def test_blocks_no_wider_than_the_rows_are_not_copied() -> None:
    X, _ = data(12, 9)
    Z, widths, bases, mean = reduce_blocks(X, (4, 5))
    assert Z is X
    assert (widths, bases) == ((4, 5), [None, None])
    assert not mean.any()


def test_constant_features_are_left_alone() -> None:
    X = np.ones((4, 9), np.float32)
    Z, widths, bases, _ = reduce_blocks(X, (9,))
    assert (widths, bases) == ((9,), [None])
    assert not Z.any()
