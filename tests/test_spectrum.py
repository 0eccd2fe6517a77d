from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from img2prompt_cache.gram import accumulate
from img2prompt_cache.metrics import mean_cosine
from img2prompt_cache.spectrum import LIMITS, best, decompose, scores, search


def problem(n, p, t=4, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * rng.uniform(0.1, 3, p) + 5
    y = (x - 5) @ rng.normal(size=(p, t)) + noise * rng.normal(size=(n, t)) + 1
    return x.astype(np.float32), y.astype(np.float32), rng.permutation(np.arange(n) % 3)


def spectra_of(x, y, fold, scale):
    by_fold = accumulate([(x, y, fold)], fold.max() + 1)
    total = reduce(add, by_fold)
    return [decompose(total - held, scale) for held in by_fold]


@pytest.mark.parametrize(("n", "p"), [(90, 12), (30, 60)])
@pytest.mark.parametrize(
    ("which", "scoring"),
    [
        (0, lambda model, x, y: mean_cosine(model.predict(x), y)),
        (1, lambda model, x, y: np.square(model.predict(x) - y).mean()),
    ],
)
def test_scores_equal_grid_search(n, p, which, scoring):
    x, y, fold = problem(n, p)
    scale = np.random.default_rng(1).uniform(0.5, 2, p)
    alphas = np.geomspace(1e-2, 1e4, 20)
    chunks = [(x[a : a + 7], y[a : a + 7], fold[a : a + 7]) for a in range(0, n, 7)]
    got = scores(chunks, spectra_of(x, y, fold, scale), alphas)[which]
    grid = GridSearchCV(Ridge(), {"alpha": alphas}, scoring=scoring, cv=PredefinedSplit(fold), refit=False)
    grid.fit(x.astype(float) * scale, y.astype(float))
    np.testing.assert_allclose(got, grid.cv_results_["mean_test_score"], rtol=1e-4)


def test_features_without_rank_are_scored_like_the_mean():
    x, y, fold = problem(30, 4)
    x[:] = 0.3
    cosine, mse = scores([(x, y, fold)], spectra_of(x, y, fold, np.ones(4)), np.array([1e-3, 1.0]))
    floor = np.mean([mean_cosine(0 * y[fold == k] + y[fold != k].mean(0), y[fold == k]) for k in range(3)])
    np.testing.assert_allclose(cosine, floor, rtol=1e-5)
    assert np.ptp(mse) == 0


@pytest.mark.parametrize("by", ["cosine", "mse"])
@pytest.mark.parametrize(("noise", "seed"), [(1.0, 0), (1e-4, 1), (1e4, 2)])
def test_search_ends_with_the_best_inside_the_range_or_at_its_limit(by, noise, seed):
    x, y, fold = problem(60, 6, noise=noise, seed=seed)
    tried = search(lambda: [(x, y, fold)], spectra_of(x, y, fold, np.ones(6)), len(x), by)
    alphas = np.array([record["alpha"] for record in tried])
    assert len(tried) >= 25
    np.testing.assert_allclose(np.diff(np.log10(alphas)), 0.25)
    chosen = best(tried, by)["alpha"]
    low, high = (len(x) * 10.0**limit for limit in LIMITS)
    assert alphas[0] < chosen < alphas[-1] or chosen == pytest.approx(low) or chosen == pytest.approx(high)
    if noise != 1:
        assert len(tried) > 25


def test_best_takes_the_stronger_of_equal_penalties():
    tried = [
        {"alpha": a, "cosine": 0.5, "mse": m} for a, m in ((1.0, 0.2), (2.0, 0.1), (3.0, 0.1), (4.0, 0.3))
    ]
    assert best(tried, "cosine")["alpha"] == 4
    assert best(tried, "mse")["alpha"] == 3
