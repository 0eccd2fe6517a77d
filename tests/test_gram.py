from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.gram import accumulate, block_scale, solve


def problem(n=90, p=12, t=5, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * rng.uniform(0.1, 3, p) + offset
    y = x @ rng.normal(size=(p, t)) + rng.normal(size=(n, t)) + 1
    return x.astype(np.float32), y.astype(np.float32)


def cut(x, y, fold, at):
    edges = [0, *sorted(at), len(x)]
    return [(x[a:b], y[a:b], fold[a:b]) for a, b in itertools.pairwise(edges) if b > a]


@given(st.sets(st.integers(1, 89), max_size=5), st.integers(1, 4))
def test_sums_do_not_depend_on_how_rows_are_chunked(at, folds):
    x, y = problem()
    fold = np.arange(90) % folds
    one = np.ones(12)
    for number, sums in enumerate(accumulate(cut(x, y, fold, at), folds)):
        inside = x[fold == number].astype(float), y[fold == number].astype(float)
        a, b = (values - values.mean(axis=0) for values in inside)
        gram, cross = sums.centred(one)
        assert sums.n == len(a)
        np.testing.assert_allclose(gram, a.T @ a, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(cross, a.T @ b, rtol=1e-9, atol=1e-9)


def test_taking_a_fold_from_the_total_leaves_the_sums_of_the_others():
    x, y = problem(offset=1000)
    fold = np.arange(90) % 3
    first, second, third = accumulate(cut(x, y, fold, [31]), 3)
    left = (first + second + third) - second
    mean, target = left.means
    assert left.n == 60
    np.testing.assert_allclose(mean, x[fold != 1].mean(axis=0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(target, y[fold != 1].mean(axis=0, dtype=float), rtol=1e-6)
    a = x[fold != 1].astype(float)
    a -= a.mean(axis=0)
    np.testing.assert_allclose(left.centred(np.ones(12))[0], a.T @ a, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("n", "p", "offset"), [(90, 12, 0), (90, 12, 500), (20, 60, 3)])
def test_solve_equals_scikit_learn(alpha, n, p, offset):
    x, y = problem(n, p, offset=offset)
    (sums,) = accumulate([(x, y, np.zeros(n, int))], 1)
    scale = np.random.default_rng(1).uniform(0.5, 2, p)
    mean, coef, intercept = solve(sums, scale, alpha)
    oracle = Ridge(alpha=alpha).fit(x.astype(float) * scale, y.astype(float))
    np.testing.assert_allclose(coef, (oracle.coef_ * scale).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((x - mean) @ coef + intercept, oracle.predict(x * scale), rtol=1e-3, atol=1e-3)


def test_linearly_dependent_features_need_a_penalty():
    x, y = problem()
    (sums,) = accumulate([(np.hstack([x, x]), y, np.zeros(90, int))], 1)
    with pytest.raises(Img2PromptError, match=r"penalty 1e-300 is too small .* raise it"):
        solve(sums, np.ones(24), 1e-300)
    assert np.isfinite(solve(sums, np.ones(24), 1.0)[1]).all()


def test_each_block_gets_a_total_variance_of_one():
    x, y = problem(offset=100)
    x[:, 8:10] = 0.1
    (sums,) = accumulate([(x, y, np.zeros(90, int))], 1)
    scale = block_scale(sums, (3, 5, 2, 2))
    variance = np.var(x * scale, axis=0, dtype=float)
    np.testing.assert_allclose([variance[:3].sum(), variance[3:8].sum(), variance[10:].sum()], 1, rtol=1e-5)
    assert np.ptp(scale[:3]) == np.ptp(scale[3:8]) == 0
    assert (scale[8:10] == 1).all()
