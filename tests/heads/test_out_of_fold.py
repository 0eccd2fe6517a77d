"""Predictions of rows that a head was not fitted on, held in memory or kept on disk."""

from __future__ import annotations

import numpy as np
import pytest

from estimators import BLOCKS, problem
from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.heads import make_head, out_of_fold
from img2prompt_cache.heads.fitting_rows import FittingRows
from img2prompt_cache.heads.out_of_fold import below, mixed_rows, predict_all, predict_by_folds
from img2prompt_cache.numerics.blending import mix
from img2prompt_cache.numerics.disk_array import to_disk


def on_disk(values):
    return ColumnRows([to_disk([values], values.shape[1])], np.arange(len(values)))


@pytest.mark.parametrize("keep", [np.asarray, on_disk])
@pytest.mark.parametrize("block", [7, 1000])
def test_each_row_is_predicted_by_a_head_of_the_other_folds(keep, block, monkeypatch):
    monkeypatch.setattr(out_of_fold, "BLOCK", block)
    X, y, groups = problem()
    fold = np.random.default_rng(0).integers(0, 3, len(X))
    fold[::11] = -1
    expected = np.empty_like(y)
    for number in range(3):
        out = fold == number
        expected[out] = make_head("ridge", alpha=1.0).fit(X[~out], y[~out]).predict(X[out])
    rows = FittingRows(keep(X), keep(y), groups, BLOCKS, np.zeros(len(X), np.int64))
    steps: list[int] = []
    found = predict_by_folds(
        lambda some: make_head("ridge", alpha=1.0).fit(some.X, some.y),
        rows,
        [(0, X.shape[1])],
        fold,
        steps.append,
    )
    assert isinstance(found, ColumnRows) == (keep is on_disk)
    assert steps == [1, 1, 1]
    np.testing.assert_allclose(found, expected[fold >= 0], atol=1e-6)


@pytest.mark.parametrize("keep", [np.asarray, on_disk])
def test_no_more_than_a_block_is_predicted_at_a_time(keep, monkeypatch):
    monkeypatch.setattr(out_of_fold, "BLOCK", 7)
    X, y, _ = problem(40)
    head = make_head("ridge", alpha=1.0).fit(X, y)
    expected, seen = head.predict(X), []
    predict = head.predict
    monkeypatch.setattr(head, "predict", lambda some: seen.append(len(some)) or predict(some))
    np.testing.assert_allclose(predict_all(head, keep(X), y.shape[1]), expected, atol=1e-6)
    assert seen == [7, 7, 7, 7, 7, 5]
    assert len(predict_all(head, keep(X)[:0], y.shape[1])) == 0


def test_mixes_are_the_same_wherever_predictions_are_kept():
    _, y, _ = problem()
    predictions, weights = [y, y[::-1].copy()], np.array([0.3, 0.7])
    by_row = np.random.default_rng(1).uniform(size=(len(y), 2))
    for each in (weights, by_row):
        held, read = mixed_rows(predictions, each), mixed_rows([*map(on_disk, predictions)], each)
        assert isinstance(read, ColumnRows)
        np.testing.assert_array_equal(held, read)
        np.testing.assert_allclose(held, mix(predictions, each), atol=1e-7)


def test_rows_are_put_below_each_other_wherever_they_are():
    one, other = np.eye(3, dtype=np.float32), np.ones((2, 3), np.float32)
    rows = on_disk(one)
    for pair in ((one, other), (on_disk(one), other), (one, on_disk(other)), (rows, on_disk(other))):
        np.testing.assert_array_equal(below(*pair), np.concatenate([one, other]))
    np.testing.assert_array_equal(below(rows, rows[1:]), np.concatenate([one, one[1:]]))
