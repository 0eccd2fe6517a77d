from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fitting.evaluate import (
    configured,
    evaluate_head,
    fit_rows,
    leakage_fits,
    measure_leakage_gap,
)
from img2prompt_cache.fitting.scores import floor
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.mean import Mean
from img2prompt_cache.numerics.metrics import mean_cosine
from synthetic import ONE, make_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(make_cache(tmp_path_factory.mktemp("trial") / "cache"))


@pytest.fixture
def data(cache):
    return load_dataset(cache, choose_features(cache, (ONE,)), choose_target(cache, None))


@pytest.mark.parametrize("folds", [None, 4])
def test_every_fold_is_predicted_by_a_head_of_the_others(cache, data, folds):
    split = make_split(cache, data, "group", 0.2, 0, folds)
    head = make_head("ridge")
    trial = evaluate_head(head, data, split)
    assert not hasattr(head, "coef_")
    assert len(trial.chosen) == split.folds == (folds or 1)
    row_of = {row: number for number, row in enumerate(split.validation)}
    for (train, held), chosen in zip(split.sides, trial.chosen, strict=True):
        oracle = make_head("ridge").fit(data.X[train], data.y[train], groups=split.groups[train])
        said = trial.predictions[[row_of[row] for row in held]]
        np.testing.assert_allclose(said, oracle.predict(data.X[held]), atol=1e-6)
        assert chosen == oracle.chosen
    assert trial.rows_per_second > 0
    given = evaluate_head(head, data, split, [{"alpha": 7.0}] * split.folds)
    assert given.chosen == [{"alpha": 7.0}] * split.folds


@pytest.mark.parametrize("folds", [None, 4])
def test_the_leakage_gap_is_what_the_same_rows_gain_beyond_the_mean_head(cache, data, folds):
    split = make_split(cache, data, "group", 0.2, 0, folds)
    head = make_head("nearest")
    trial = evaluate_head(head, data, split)
    fits = []
    gap = measure_leakage_gap(head, data, split, trial, fits.append)
    assert sum(fits) == leakage_fits(split) == (folds or 5)
    assert gap.cosine > 0.2
    assert gap.ci95[0] <= gap.cosine <= gap.ci95[1]
    leaking = make_split(cache, data, "random", 0.2, 0, folds)
    assert measure_leakage_gap(head, data, leaking, evaluate_head(head, data, leaking)) is None


@pytest.mark.parametrize("folds", [None, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_head_that_sees_no_image_has_no_leakage_gap(cache, data, folds, seed):
    split = make_split(cache, data, "group", 0.2, seed, folds)
    head = make_head("mean")
    gap = measure_leakage_gap(head, data, split, evaluate_head(head, data, split))
    assert gap.cosine == pytest.approx(0, abs=1e-6)
    assert gap.floor > 0.05  # it was fitted on prompts like those held out
    assert gap.ci95 == pytest.approx((0, 0), abs=1e-6)


@pytest.mark.parametrize("name", ["mean", "ridge", "kernel", "knn", "mlp"])
def test_features_that_tell_nothing_score_the_floor(cache, data, name):
    settings = {"mlp": {"hidden": (8,), "max_epochs": 10}}.get(name, {})
    blind = replace(data, X=np.random.default_rng(0).normal(size=data.X.shape).astype(np.float32))
    split = make_split(cache, blind, "group", 0.2, 0, 4)
    trial = evaluate_head(make_head(name, **settings), blind, split)
    scored = mean_cosine(trial.predictions, data.y[split.validation])
    # Better than the floor would be a leak; a head that has to choose on few rows is a little below.
    assert floor(data.y, split) - 0.15 < scored < floor(data.y, split) + 0.03


@pytest.mark.parametrize("name", ["nearest", "knn", "ridge", "kernel", "mlp"])
def test_what_is_held_out_changes_no_prediction(cache, data, name):
    settings = {"mlp": {"hidden": (8,), "max_epochs": 5}}.get(name, {})
    head, split = make_head(name, **settings), make_split(cache, data, "group", 0.2, 0)
    train, held = split.train, split.validation
    fitted = fit_rows(configured(head, {}), data, split, train)
    X, y = data.X.copy(), data.y.copy()
    X[held], y[held] = X[held][::-1] * 3 + 1, -y[held][::-1]
    again = fit_rows(configured(head, {}), replace(data, X=X, y=y), split, train)
    assert again.chosen == fitted.chosen
    assert np.array_equal(again.predict(data.X), fitted.predict(data.X))


class Mad(Mean):
    """A head that says nothing."""

    name = "mad"

    def _predict(self, X):
        return super()._predict(X) * np.nan


def test_a_prediction_that_is_no_number_is_refused(cache, data):
    with pytest.raises(Img2PromptError, match="head 'mad' predicts NaN or infinity"):
        evaluate_head(Mad(), data, make_split(cache, data, "group", 0.2, 0))
