"""scikit-learn's own checks, over every head that is fitted on features alone; and its tools with heads."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from estimators import BLOCKS, ON_FEATURES, QUICK, problem, quick
from img2prompt_cache.errors import DataError, Img2PromptError
from img2prompt_cache.heads import HEADS, make_head

FLOAT32 = {
    "check_regressor_multioutput": "predictions are float32, as features and targets are cached: float64 "
    "would double the memory and say no more"
}
ONE_ROW = {
    "check_fit2d_1sample": "settings are chosen on rows that are held out, and of one row none can be; the "
    "message says so, but of rows and not of samples"
}
EXPECTED = {
    "mean": FLOAT32,
    "nearest": FLOAT32,
    "knn": FLOAT32 | ONE_ROW,
    "ridge": FLOAT32 | ONE_ROW,
    "kernel": FLOAT32 | ONE_ROW,
    "linear": FLOAT32 | ONE_ROW,
    "mlp": FLOAT32 | ONE_ROW,
    "wide-mlp": FLOAT32 | ONE_ROW,
    "seed-resnet50": FLOAT32 | ONE_ROW,
    "seed-vit": FLOAT32 | ONE_ROW,
    "seed-tuned-resnet": FLOAT32 | ONE_ROW,
    "blend": FLOAT32 | ONE_ROW,
    "best": FLOAT32 | ONE_ROW,
    "distil": FLOAT32 | ONE_ROW,
}
"""The checks that a head does not pass, and why."""

SETTINGS = {
    **QUICK,
    # The checks' targets are single numbers: of these a cosine tells the sign alone, and has no gradient.
    "linear": {**QUICK["linear"], "loss": "mse", "max_epochs": 20},
    "wide-mlp": {**QUICK["wide-mlp"], "loss": "mse"},
    "blend": {"members": ({"head": "ridge"}, {"head": "nearest"})},
    "best": {"members": ({"head": "ridge"}, {"head": "knn"})},
}
"""Quick to fit, on any number of features."""


def _expected(head):
    return EXPECTED[head.name]


@parametrize_with_checks(
    [make_head(name, **SETTINGS.get(name, {})) for name in ON_FEATURES], expected_failed_checks=_expected
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_no_head_has_more_than_two_exceptions():
    assert {*EXPECTED} == {*ON_FEATURES}
    assert max(map(len, EXPECTED.values())) <= 2


every_head = pytest.mark.parametrize("name", ON_FEATURES)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_a_regressor_of_vectors_and_knows_whether_it_is_fitted(name):
    head = make_head(name)
    assert is_regressor(head)
    tags = get_tags(head)
    assert tags.target_tags.multi_output
    assert not tags.target_tags.single_output
    assert tags.input_tags.two_d_array == (head.takes == "features")
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        head.predict(np.zeros((1, 3), np.float32))


@every_head
def test_a_head_that_was_read_back_knows_its_number_of_features(name):
    X, y, groups = problem()
    head = quick(name)
    assert not hasattr(head, "n_features_in_")
    head.fit(X, y, groups=groups, widths=BLOCKS)
    assert head.n_features_in_ == 20
    assert clone(head).load_state(head.state()).n_features_in_ == 20


@every_head
def test_lists_and_float64_are_fitted_like_float32(name):
    X, y, groups = problem(60)
    expected = quick(name).fit(X, y, groups=groups, widths=BLOCKS).predict(X)
    for kind in (np.ndarray.tolist, np.float64):
        head = quick(name).fit(kind(X), kind(y), groups=list(groups), widths=list(BLOCKS))
        assert np.array_equal(head.predict(kind(X)), expected)


@every_head
@pytest.mark.parametrize("huge", [1e39, 1e308, -1e308])
def test_values_that_float32_cannot_hold_are_refused_by_name(name, huge):
    X, y, _ = problem(30)
    wide, targets = X.astype(np.float64), y.astype(np.float64)
    wide[4, 1] = targets[5, 2] = huge
    wide[6] = huge  # a float64 sum of these overflows
    with pytest.raises(DataError, match=r"features hold a value that is infinite in float32, first in row 4"):
        quick(name).fit(wide, y)
    with pytest.raises(DataError, match=r"targets hold a value that is infinite in float32, first in row 5"):
        quick(name).fit(X, targets)
    with pytest.raises(DataError, match=r"features hold a value that is infinite in float32, first in row 4"):
        quick(name).fit(X, y, validation=(wide, y))
    with pytest.raises(DataError, match=r"features hold a value that is infinite in float32, first in row 4"):
        quick(name).fit(X, y).predict(wide)


@every_head
def test_targets_that_are_no_matrix_are_answered_with_what_to_do(name):
    X, y, _ = problem(30)
    for targets in (y[:, 0], list(y[:, 0])):
        with pytest.raises(DataError, match=r"y has shape \(30,\).*y\.reshape\(-1, 1\)"):
            quick(name).fit(X, targets)


@every_head
def test_validation_rows_must_fit_the_training_rows(name):
    X, y, _ = problem(30)
    for wrong in ((X[:, 1:], y), (X, y[:, 1:]), (X[1:], y), (X, y[:, 0])):
        with pytest.raises(DataError, match=r"do not fit|y has shape"):
            quick(name).fit(X, y, validation=wrong)


def test_a_data_error_is_a_value_error_and_one_of_ours():
    X, y, _ = problem(30)
    for wrong in ((X[1:], y), (X[:, 0], y), (X[:0], y[:0]), (X * np.nan, y), (X + 1j, y), (X, None)):
        with pytest.raises(ValueError, match=r".") as caught:
            make_head("mean").fit(*wrong)
        assert isinstance(caught.value, Img2PromptError)


def test_the_tools_of_scikit_learn_take_a_head():
    X, y, groups = problem()
    piped = make_pipeline(StandardScaler(), make_head("ridge", alpha=1.0))
    assert clone(piped).fit(X, y).score(X, y) > 0.8
    folds = GroupKFold(4)
    grid = GridSearchCV(make_head("ridge"), {"alpha": [1e-3, 1e9]}, cv=folds)
    grid.fit(X, y, groups=groups, widths=BLOCKS)
    scores = {
        alpha: cross_val_score(
            make_head("ridge", alpha=alpha), X, y, groups=groups, cv=folds, params={"widths": BLOCKS}
        ).mean()
        for alpha in (1e-3, 1e9)
    }
    assert grid.best_params_ == {"alpha": max(scores, key=scores.get)}
    assert grid.best_score_ == pytest.approx(max(scores.values()), abs=1e-12)
    assert grid.best_estimator_.alpha_.shape == (2,)
