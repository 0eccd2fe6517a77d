from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.data.splits import hold_out, k_fold_split
from img2prompt_cache.fitting.scores import by_fold, floor, score
from img2prompt_cache.heads import make_head
from img2prompt_cache.numerics import hubs
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import cosine, unit


def vectors(n, d=384, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def test_retrieval_is_among_distinct_targets():
    truth, groups = vectors(6)[[0, 1, 2, 2, 3, 3]], np.arange(6)
    nearly = unit(truth + 1e-6 * np.random.default_rng(1).normal(size=truth.shape))
    found = score(truth, nearly, groups)
    assert found["r@1"] == found["r@10"] == 1
    assert found["n"] == 6
    assert found["cosine"] == pytest.approx(1)
    constant = score(np.tile(truth[:1], (6, 1)), truth, groups)
    assert constant["r@1"] == pytest.approx(1 / 6)
    assert score(np.roll(truth, 1, axis=0), truth, groups)["r@1"] == pytest.approx(2 / 6)


def test_ranks_are_those_of_a_sort():
    truth = vectors(60, 8)
    said = unit(truth + 0.5 * vectors(60, 8, seed=1))
    rank = (said @ truth.T > (said * truth).sum(axis=1, keepdims=True) + 1e-6).sum(axis=1)
    found = score(said, truth, np.arange(60))
    for k in (1, 5, 10):
        assert found[f"r@{k}"] == pytest.approx((rank < k).mean())


def test_corrected_ranks_are_those_after_half_of_each_prompts_mean_cosine_is_subtracted():
    truth = unit(vectors(60, 8) + 0.2)
    said = unit(truth + 1.5 * vectors(60, 8, seed=1) + 0.5)
    corrected = said @ truth.T - hubs.ALPHA * (said @ truth.T).mean(axis=0)
    rank = (corrected > np.diagonal(corrected)[:, None] + 1e-6).sum(axis=1)
    found = score(said, truth, np.arange(60))
    for k in (1, 5, 10):
        assert found[f"r@{k}_corrected"] == pytest.approx((rank < k).mean())
    assert found["r@5_corrected"] != found["r@5"]


def test_by_folds_a_row_is_ranked_among_its_own_fold():
    truth, fold = vectors(60, 8), np.arange(60) % 3
    said = unit(truth + 0.5 * vectors(60, 8, seed=1))
    found = score(said, truth, np.arange(60), fold)
    each = [score(said[fold == k], truth[fold == k], np.arange(20)) for k in range(3)]
    for name in ("r@1", "r@5", "r@10"):
        assert found[name] == pytest.approx(np.mean([one[name] for one in each]))
    assert found["bank"] == 20
    assert score(said, truth, np.arange(60))["bank"] == 60


def test_a_head_that_answers_with_training_targets_can_find_the_prompt():
    # Each row has a near twin in another fold; the head answers with the twin's target, as `nearest` does.
    base = vectors(50, 16)
    truth = unit(np.concatenate([base, base + 0.02 * vectors(50, 16, seed=1)]))
    said, fold = np.roll(truth, 50, axis=0), np.repeat([0, 1], 50)
    assert score(said, truth, np.arange(100))["r@1"] == 0
    assert score(said, truth, np.arange(100), fold)["r@1"] == 1


def test_a_hold_out_of_the_size_of_a_fold_has_a_bank_of_its_size():
    rng = np.random.default_rng(0)
    truth, groups = vectors(1000, 16), np.arange(1000) // 2
    said = unit(truth + 2.0 * unit(rng.normal(size=truth.shape)))
    folds, held = k_fold_split(groups, 5), hold_out(groups, 0.2)
    by_folds = score(said, truth, groups, folds.fold)
    rows = held.validation
    once = score(said[rows], truth[rows], groups[rows], held.fold[rows])
    assert by_folds["bank"] == once["bank"] == 200
    assert once["r@5"] == pytest.approx(by_folds["r@5"], abs=0.1)


def test_the_interval_draws_groups():
    truth, said, groups = vectors(30, 5), vectors(30, 5, seed=1), np.arange(30) // 3
    assert score(said, truth, groups)["ci95"] == list(interval(cosine(said, truth), groups))
    assert score(said, truth, np.zeros(30, int))["ci95"] is None


def test_the_floor_is_the_mean_head_on_the_same_rows():
    X, y = np.zeros((40, 1), np.float32), unit(vectors(40, 6) + 0.3)
    for split in (hold_out(np.arange(40) // 2), k_fold_split(np.arange(40) // 2, 4)):
        cosines = [
            cosine(make_head("mean").fit(X[train], y[train]).predict(X[held]), y[held])
            for train, held in split.sides
        ]
        assert floor(y, split) == pytest.approx(np.concatenate(cosines).mean(), abs=1e-7)


def test_folds_one_by_one():
    told = by_fold(np.array([0.1, 0.5, 0.3]), np.array([0, 1, 0]), [{"k": 1}, {"k": 2}])
    assert told == [
        {"cosine": pytest.approx(0.2), "n": 2, "chosen": {"k": 1}},
        {"cosine": pytest.approx(0.5), "n": 1, "chosen": {"k": 2}},
    ]
