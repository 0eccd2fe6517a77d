from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Oracle
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import DataError, UsageError
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.numerics import gram, ridge_path
from img2prompt_cache.numerics.gram import Rows
from img2prompt_cache.numerics.metrics import mean_cosine, unit


def problem(n=160, p=30, t=8):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) + 2
    y = unit(X @ rng.normal(size=(p, t)) * 0.1 + rng.normal(size=(n, t)) + 0.5)
    return X.astype(np.float32), y, np.arange(n) // 4


def cosine_scorer(model, X, y):
    return mean_cosine(model.predict(X), y)


@pytest.mark.parametrize(
    ("choose", "scoring"), [("cosine", cosine_scorer), ("mse", "neg_mean_squared_error")]
)
@pytest.mark.parametrize(("n", "p", "blocks"), [(160, 30, (30,)), (160, 30, (10, 20)), (60, 80, (80,))])
def test_ridge_equals_grid_search(monkeypatch, choose, scoring, n, p, blocks):
    monkeypatch.setattr(gram, "ROWS", 17)
    monkeypatch.setattr(ridge_path, "STRIP", 11)
    X, y, groups = problem(n, p)
    head = Ridge(choose=choose).fit(X, y, groups=groups, widths=blocks)
    edges = np.cumsum(blocks)[:-1]
    spread = [np.sqrt(part.var(axis=0, dtype=float).sum()) for part in np.split(X, edges, axis=1)]
    penalties = np.atleast_1d(head.chosen["alpha"])
    ratios = penalties / np.exp(np.log(penalties).mean())
    width = np.repeat(spread * np.sqrt(ratios), blocks)
    scaled = X.astype(float) / width
    assert len(head.history) >= 20
    looked_at = [record for record in head.history if choose in record]
    alphas = [record["alpha"] for record in looked_at]
    folds = PredefinedSplit(k_folds(groups, 5, 0))
    grid = GridSearchCV(Oracle(), {"alpha": alphas}, scoring=scoring, cv=folds).fit(scaled, y.astype(float))
    sign = 1 if choose == "cosine" else -1
    got = [sign * record[choose] for record in looked_at]
    assert len(alphas) >= 5
    np.testing.assert_allclose(got, grid.cv_results_["mean_test_score"], rtol=1e-4)
    np.testing.assert_allclose(penalties, ratios * grid.best_params_["alpha"], rtol=1e-6)
    coef = grid.best_estimator_.coef_ / width
    np.testing.assert_allclose(head.coef_, coef.T, atol=1e-4 * np.abs(coef).max())
    np.testing.assert_allclose(head.predict(X), unit(grid.predict(scaled)), atol=1e-4)


def test_a_wider_search_finds_no_better_penalty():
    X, y, groups = problem()
    head = Ridge().fit(X, y, groups=groups)
    scaled = X.astype(float) / np.sqrt(X.var(axis=0, dtype=float).sum())
    folds = PredefinedSplit(k_folds(groups, 5, 0))
    alphas = len(X) * 10.0 ** np.arange(-8, 5.25, 0.25)
    grid = GridSearchCV(Oracle(), {"alpha": alphas}, scoring=cosine_scorer, cv=folds).fit(scaled, y)
    assert head.chosen["alpha"] == pytest.approx(grid.best_params_["alpha"])


def test_a_backbone_of_noise_gets_the_stronger_penalty():
    X, y, groups = problem()
    noise = np.random.default_rng(1).normal(size=(160, 40)).astype(np.float32)
    head = Ridge().fit(np.hstack([X, noise]), y, groups=groups, widths=(30, 40))
    signal, nothing = head.chosen["alpha"]
    assert nothing > 5 * signal


def test_a_stream_of_chunks_is_fitted_like_an_array():
    X, y, groups = problem()
    half, fold = X.astype(np.float16), k_folds(groups, 5, 0)

    def chunks():
        for start in range(0, 160, 33):
            rows = slice(start, start + 33)
            yield Rows(half[rows], y[rows], fold[rows])

    streamed = Ridge().fit_stream(chunks, 160, (10, 20))
    whole = Ridge().fit(half.astype(np.float32), y, groups=groups, widths=(10, 20))
    np.testing.assert_allclose(streamed.chosen["alpha"], whole.chosen["alpha"], rtol=1e-6)
    np.testing.assert_allclose(streamed.predict(X), whole.predict(X), atol=1e-5)


def test_a_weight_of_three_is_three_rows():
    X, y, groups = problem()
    weight = np.random.default_rng(1).integers(1, 4, 160)
    weighted = Ridge(alpha=2.0).fit(X, y, sample_weight=weight)
    repeated = Ridge(alpha=2.0).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight, axis=0))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-5)
    uniform = Ridge().fit(X, y, groups=groups, sample_weight=np.full(160, 1.0))
    assert np.array_equal(uniform.predict(X), Ridge().fit(X, y, groups=groups).predict(X))


def test_a_row_of_weight_zero_is_left_out():
    X, y, groups = problem()
    weight = np.where(np.arange(160) % 5, 1.0, 0.0)
    weighted = Ridge().fit(X, y, groups=groups, sample_weight=weight)
    without = Ridge().fit(X[weight > 0], y[weight > 0], groups=groups[weight > 0])
    np.testing.assert_array_equal(weighted.predict(X), without.predict(X))
    assert weighted.chosen == without.chosen


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.zeros(160), "all of `sample_weight` are zero"),
        (np.full(160, np.nan), "160 finite numbers"),
        (np.full(160, -1.0), "at least 0"),
        (np.ones(159), "one for each row"),
    ],
)
def test_wrong_weights_are_refused(weight, words):
    X, y, _ = problem()
    with pytest.raises(DataError, match=words):
        Ridge(alpha=1.0).fit(X, y, sample_weight=weight)


def test_a_backbones_units_do_not_matter():
    X, y, groups = problem()
    louder = X * np.repeat([1.0, 1000.0], 15).astype(np.float32)
    plain, loud = (Ridge().fit(x, y, groups=groups, widths=(15, 15)).predict(x) for x in (X, louder))
    np.testing.assert_allclose(plain, loud, atol=1e-4)


def test_a_given_penalty_is_used_and_none_are_tried():
    X, y, _ = problem()
    head = Ridge(alpha=3.5).fit(X, y)
    assert head.chosen == {"alpha": 3.5}
    assert head.history == []
    assert Ridge(alpha=3.5).fit(X, y, widths=(10, 20)).chosen == {"alpha": [3.5, 3.5]}
    assert Ridge(alpha=(3.5, 1.0)).fit(X, y, widths=(10, 20)).chosen == {"alpha": [3.5, 1.0]}


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_a_penalty_out_of_range_is_refused(alpha):
    X, y, _ = problem()
    with pytest.raises(UsageError, match="'alpha' of head 'ridge' must be finite and above 0"):
        Ridge(alpha=alpha).fit(X, y)


def test_other_wrong_settings_are_refused():
    X, y, groups = problem()
    with pytest.raises(UsageError, match="one number, or one for each of 2 backbones"):
        Ridge(alpha=(1.0, 2.0, 3.0)).fit(X, y, widths=(10, 20))
    with pytest.raises(UsageError, match="did you mean cosine"):
        Ridge(choose="cosin").fit(X, y)
    with pytest.raises(UsageError, match=r"2 groups .* cannot fill 5 folds"):
        Ridge().fit(X, y, groups=groups % 2)
