from __future__ import annotations

import itertools
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics import gram as module
from img2prompt_cache.numerics.gram import Rows, accumulate, block_scale, solve

ONES = np.ones(12)


def problem(n=90, p=12, t=5, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * rng.uniform(0.1, 3, p) + offset
    y = x @ rng.normal(size=(p, t)) + rng.normal(size=(n, t)) + 1
    return x.astype(np.float32), y.astype(np.float32)


def cut(x, y, fold, at, weight=None):
    edges = [0, *sorted(at), len(x)]
    weight = np.ones(len(x)) if weight is None else weight
    return [Rows(x[a:b], y[a:b], fold[a:b], weight[a:b]) for a, b in itertools.pairwise(edges) if b > a]


def whole(x, y, weight=None):
    (sums,) = accumulate([Rows(x, y, np.zeros(len(x), int), weight)], 1)
    return sums


@given(
    st.sets(st.integers(1, 89), max_size=5),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([5, 4096]),
)
def test_moments_are_those_of_numpy_however_rows_are_chunked_and_weighted(at, folds, seed, most):
    x, y = problem(seed=seed)
    fold = np.arange(90) % folds
    weight = np.random.default_rng(seed).uniform(0.1, 3, 90) if seed else np.ones(90)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", most)
        by_fold = accumulate(cut(x, y, fold, at, weight), folds)
    origin = by_fold[-1]
    last = fold == folds - 1
    mean, target = (np.average(v[last].astype(float), axis=0, weights=weight[last]) for v in (x, y))
    for number, sums in enumerate(by_fold):
        w = weight[fold == number, None]
        a, b = x[fold == number] - mean, y[fold == number] - target
        gram, cross, square = sums.moments_about(origin, ONES)
        assert sums.n == pytest.approx(w.sum())
        np.testing.assert_allclose(gram, a.T @ (w * a), rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(cross, a.T @ (w * b), rtol=1e-9, atol=1e-8)
        assert square == pytest.approx((w * b * b).sum(), rel=1e-9)


def test_taking_a_fold_from_the_total_leaves_the_sums_of_the_others():
    x, y = problem(offset=1000)
    fold = np.arange(90) % 3
    by_fold = accumulate(cut(x, y, fold, [31]), 3)
    left = reduce(add, by_fold) - by_fold[1]
    mean, target = left.means
    assert left.n == 60
    np.testing.assert_allclose(left.shift + mean, x[fold != 1].mean(axis=0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(target, y[fold != 1].mean(axis=0, dtype=float), rtol=1e-6)
    a = x[fold != 1].astype(float)
    a -= a.mean(axis=0)
    np.testing.assert_allclose(left.moments_about(left, ONES)[0], a.T @ a, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("n", "p", "offset"), [(90, 12, 0), (90, 12, 500), (20, 60, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_solve_equals_scikit_learn(alpha, n, p, offset, weighted):
    x, y = problem(n, p, offset=offset)
    rng = np.random.default_rng(1)
    scale = rng.uniform(0.5, 2, p)
    weight = rng.uniform(0.1, 2, n) if weighted else None
    mean, coef, intercept = solve(whole(x, y, weight), scale, alpha)
    oracle = Ridge(alpha=alpha).fit(x.astype(float) * scale, y.astype(float), sample_weight=weight)
    np.testing.assert_allclose(coef, (oracle.coef_ * scale).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((x - mean) @ coef + intercept, oracle.predict(x * scale), rtol=1e-3, atol=1e-3)


def test_a_penalty_per_column_is_a_scale_per_column():
    x, y = problem()
    alpha = np.random.default_rng(2).uniform(0.1, 50, 12)
    given, scaled = solve(whole(x, y), ONES, alpha)[1], solve(whole(x, y), alpha**-0.5, 1.0)[1]
    np.testing.assert_allclose(given, scaled, rtol=1e-5, atol=1e-6)


def test_float16_rows_are_summed_in_full_precision():
    x, y = problem(n=3000, offset=300)
    half = x.astype(np.float16)
    sums = whole(half, y)
    exact = half.astype(float) - half.mean(axis=0, dtype=float)
    np.testing.assert_allclose(sums.moments_about(sums, ONES)[0], exact.T @ exact, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    for which in (0, 1):
        arrays = problem()
        arrays[which][40, 3] = bad
        with pytest.raises(Img2PromptError, match="features or targets hold NaN or infinity"):
            whole(*arrays)


def test_linearly_dependent_features_need_a_penalty():
    x, y = problem()
    sums = whole(np.hstack([x, x]), y)
    with pytest.raises(Img2PromptError, match=r"penalty 1e-300 is too small .* raise it"):
        solve(sums, np.ones(24), 1e-300)
    assert np.isfinite(solve(sums, np.ones(24), 1.0)[1]).all()


def test_each_block_gets_a_total_variance_of_one():
    x, y = problem(offset=100)
    x[:, 8:10] = 0.1
    scale = block_scale(whole(x, y), (3, 5, 2, 2))
    variance = np.var(x * scale, axis=0, dtype=float)
    np.testing.assert_allclose([variance[:3].sum(), variance[3:8].sum(), variance[10:].sum()], 1, rtol=1e-5)
    assert np.ptp(scale[:3]) == np.ptp(scale[3:8]) == 0
    assert (scale[8:10] == 1).all()
