from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from img2prompt_cache.numerics import ridge_path as module
from img2prompt_cache.numerics.gram import Rows, accumulate
from img2prompt_cache.numerics.metrics import mean_cosine
from img2prompt_cache.numerics.ridge_path import (
    argmin_error,
    decompose,
    held_out_cosine,
    hill_climb,
    penalties,
    project,
)

ALPHAS = np.geomspace(1e-2, 1e4, 20)


def problem(n, p, t=4, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * rng.uniform(0.1, 3, p) + 5
    y = (x - 5) @ rng.normal(size=(p, t)) + noise * rng.normal(size=(n, t)) + 1
    return x.astype(np.float32), y.astype(np.float32), rng.permutation(np.arange(n) % 3)


def chunked(x, y, fold, weight=None, size=7):
    for a in range(0, len(x), size):
        rows = slice(a, a + size)
        yield Rows(x[rows], y[rows], fold[rows], None if weight is None else weight[rows])


def spectra_of(chunks, scale, alphas=ALPHAS, folds=3):
    by_fold = accumulate(chunks, folds)
    total = reduce(add, by_fold)
    return [decompose(total, held, scale, alphas) for held in by_fold]


def scores(x, y, fold, scale, weight=None):
    spectra = spectra_of(chunked(x, y, fold, weight), scale)
    held = project(chunked(x, y, fold, weight), spectra, len(x), 0)
    return (
        np.array([held_out_cosine(held, spectra, alpha) for alpha in ALPHAS]),
        np.mean([spectrum.mse for spectrum in spectra], axis=0),
    )


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
    got = scores(x, y, fold, scale)[which]
    grid = GridSearchCV(Ridge(), {"alpha": ALPHAS}, scoring=scoring, cv=PredefinedSplit(fold), refit=False)
    grid.fit(x.astype(float) * scale, y.astype(float))
    np.testing.assert_allclose(got, grid.cv_results_["mean_test_score"], rtol=1e-4)


def test_a_weight_of_three_is_three_rows():
    x, y, fold = problem(60, 8)
    weight = np.random.default_rng(0).integers(1, 4, 60)
    repeated = (np.repeat(values, weight, axis=0) for values in (x, y, fold))
    for got, want in zip(
        scores(x, y, fold, np.ones(8), weight.astype(float)), scores(*repeated, np.ones(8)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4)


def test_features_without_rank_are_scored_like_the_mean():
    x, y, fold = problem(30, 4)
    x[:] = 0.3
    cosine, mse = scores(x, y, fold, np.ones(4))
    floor = np.mean([mean_cosine(0 * y[fold == k] + y[fold != k].mean(0), y[fold == k]) for k in range(3)])
    np.testing.assert_allclose(cosine, floor, rtol=1e-5)
    assert np.ptp(mse) == 0


def test_a_sample_of_the_rows_scores_about_the_same(monkeypatch):
    x, y, fold = problem(4000, 6, noise=5.0)
    spectra = spectra_of([Rows(x, y, fold)], np.ones(6))
    everything = project([Rows(x, y, fold)], spectra, len(x), 0)
    monkeypatch.setattr(module, "MAX_SCORED", 1000)
    sample = project(chunked(x, y, fold, size=501), spectra, len(x), 0)
    drawn = sum(len(y) for parts in sample for _, y, _ in parts)
    assert 900 < drawn < 1100
    assert held_out_cosine(sample, spectra, 1.0) == pytest.approx(
        held_out_cosine(everything, spectra, 1.0), abs=0.02
    )


def test_a_fold_that_a_sample_missed_is_left_out():
    x, y, fold = problem(60, 6)
    spectra = spectra_of([Rows(x, y, fold)], np.ones(6))
    held = project([Rows(x, y, fold)], spectra, 60, 0)
    assert held_out_cosine([held[0], [], []], spectra, 1.0) == held_out_cosine(held[:1], spectra[:1], 1.0)


def test_penalties_are_log_spaced_and_grow_with_the_rows():
    alphas = penalties(200)
    assert alphas[0] == pytest.approx(200e-8)
    assert alphas[-1] == pytest.approx(200e5)
    np.testing.assert_allclose(np.diff(np.log10(alphas)), 0.25)


@given(st.integers(0, 52), st.integers(0, 52), st.floats(0.3, 3))
def test_a_curve_with_one_top_is_climbed_from_anywhere(start, top, power):
    best, known = hill_climb(start, 53, lambda index: -(abs(index - top) ** power))
    assert best == top
    assert len(known) <= 5 + abs(start - top) // 2 + 1
    assert known[best] == max(known.values())


def test_of_equals_the_stronger_penalty_is_taken():
    assert argmin_error(np.array([3.0, 1.0, 1.0, 2.0])) == 2
    assert hill_climb(0, 9, lambda index: 0.5)[0] == 8
