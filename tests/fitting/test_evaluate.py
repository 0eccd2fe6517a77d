from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fitting.evaluate import evaluate_head, measure_leakage_gap
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
def test_the_leakage_gap_is_what_a_random_split_of_the_same_size_says_more(cache, data, folds):
    split = make_split(cache, data, "group", 0.2, 0, folds)
    head = make_head("nearest")
    trial = evaluate_head(head, data, split)
    gap = measure_leakage_gap(head, data, split, trial)
    leaking = make_split(cache, data, "random", len(split.validation) / 60, 0, folds)
    assert len(leaking.validation) == len(split.validation)
    flattered = evaluate_head(head, data, leaking)
    scores = [
        mean_cosine(said.predictions, data.y[division.validation])
        for said, division in ((flattered, leaking), (trial, split))
    ]
    assert gap == pytest.approx(scores[0] - scores[1])
    assert gap > 0.2
    assert measure_leakage_gap(head, data, leaking, flattered) is None


class Mad(Mean):
    """A head that says nothing."""

    name = "mad"

    def predict(self, X):
        return super().predict(X) * np.nan


def test_a_prediction_that_is_no_number_is_refused(cache, data):
    with pytest.raises(Img2PromptError, match="head 'mad' predicts NaN or infinity"):
        evaluate_head(Mad(), data, make_split(cache, data, "group", 0.2, 0))
