from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from estimators import BLOCKS, problem
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import DataError, UsageError
from img2prompt_cache.heads import best as module
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.best import Best
from img2prompt_cache.numerics.metrics import mean_cosine

RIDGE, MEAN, KNN = {"head": "ridge"}, {"head": "mean"}, {"head": "knn", "settings": {"k": 5}}


def best(*members, **settings):
    return Best(members=members, **settings)


def test_a_step_that_pays_is_kept_and_one_that_does_not_is_dropped():
    X, y, groups = problem()
    head = best(MEAN, RIDGE, MEAN).fit(X, y, groups=groups, widths=BLOCKS)
    assert [step["step"] for step in head.history] == ["mean", "ridge", "mean", "soft bank"]
    assert [step["kept"] for step in head.history][:3] == [1, 1, 0]
    assert head.history[1]["gain"] > 2 * head.history[1]["standard error"]
    assert head.heads_[2] is None
    assert head.weights_[1] > 0.9
    again = clone(head).load_state(head.state())
    assert np.array_equal(again.predict(X), head.predict(X))


def test_steps_are_scored_on_rows_that_were_held_out_from_them():
    X, y, groups = problem()
    head = best(RIDGE).fit(X, y, groups=groups, widths=BLOCKS)
    fold, found = k_folds(groups, 5, 0), np.empty_like(y)
    alpha = make_head("ridge").fit(X, y, groups=groups, widths=BLOCKS).chosen["alpha"]
    for number in range(5):
        held = fold == number
        ridge = make_head("ridge", alpha=alpha).fit(X[~held], y[~held], widths=BLOCKS)
        found[held] = ridge.predict(X[held])
    assert head.history[0]["cosine"] == pytest.approx(mean_cosine(found, y), abs=1e-5)


def test_a_step_that_would_end_too_late_is_left_out(monkeypatch):
    X, y, groups = problem()
    clock = iter(np.arange(0, 1e6, 7.0))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    head = best(RIDGE, KNN, MEAN, minutes=0.5).fit(X, y, groups=groups, widths=BLOCKS)
    tried = [step["step"] for step in head.history if "cosine" in step]
    assert tried[0] == "ridge"
    assert 1 <= len(tried) < 4
    assert len(head.history) == 4


def test_the_first_step_is_tried_whatever_the_time():
    X, y, groups = problem()
    head = best(RIDGE, KNN, minutes=0.0).fit(X, y, groups=groups, widths=BLOCKS)
    assert [("cosine" in step) for step in head.history] == [True, False, False]
    assert np.isfinite(head.predict(X)).all()


def shifted(n=90, seed=5):
    """Pairs of another kind: the same map, prompts elsewhere on the sphere."""
    X, y, _ = problem(n, seed)
    return X, y + np.eye(y.shape[1], dtype=np.float32)[0]


def test_extra_pairs_help_where_there_are_few_of_the_wanted_kind():
    X, y, groups = problem(30)
    more, targets = shifted(400)
    new, true, _ = problem(200, 7)
    kinds = np.repeat([0, 1], [30, 400])
    all_groups = np.concatenate([groups, 1000 + np.arange(400)])
    kernel = {"head": "kernel", "extra": False}
    head = best(kernel, {"head": "kernel", "extra": True})
    head.fit(np.vstack([X, more]), np.vstack([y, targets]), groups=all_groups, widths=BLOCKS, kinds=kinds)
    assert [step["step"] for step in head.history][:2] == ["kernel", "kernel with extra pairs"]
    alone = best(kernel).fit(X, y, groups=groups, widths=BLOCKS)
    assert head.score(new, true) > alone.score(new, true) + 0.01


def test_members_that_do_not_tell_kinds_apart_are_fitted_on_the_wanted_rows():
    X, y, groups = problem(60)
    more, targets = shifted(40)
    kinds = np.repeat([0, 1], [60, 40])
    all_groups = np.concatenate([groups, 1000 + np.arange(40)])
    head = best(RIDGE, KNN)
    head.fit(np.vstack([X, more]), np.vstack([y, targets]), groups=all_groups, widths=BLOCKS, kinds=kinds)
    alone = best(RIDGE, KNN).fit(X, y, groups=groups, widths=BLOCKS)
    np.testing.assert_allclose(head.predict(X), alone.predict(X), atol=1e-6)


def test_a_held_out_prompt_in_the_bank_would_show():
    """What `fit` leaves out of a bank: with the prompts of held-out rows in it, every score would rise."""
    X, y, groups = problem()
    noise = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    honest = best(RIDGE).fit(noise, y, groups=groups)
    leaking = best(RIDGE).fit(noise, y, groups=groups, bank=y)
    assert leaking.history[-1]["cosine"] > honest.history[-1]["cosine"] + 0.001


def test_settings_of_the_soft_bank_that_are_given_are_not_chosen():
    X, y, groups = problem()
    y[groups % 2 == 1] = y[0]  # a prompt that returns in every fold
    given = best(RIDGE, temperature=0.05, pull=0.35).fit(X, y, groups=groups)
    assert given.chosen["pull"] in (0.35, 0.0)
    assert (given.history[-1]["kept"] == 1) == (given.chosen["pull"] == 0.35)
    free = best(RIDGE).fit(X, y, groups=groups)
    assert free.history[-1]["cosine"] != given.history[-1]["cosine"]
    for head in (best(RIDGE, pull=0.3), make_head("blend", members=[RIDGE], temperature=0.1)):
        with pytest.raises(UsageError, match="given together with 'temperature'"):
            head.fit(X, y, groups=groups)
    with pytest.raises(UsageError, match="'minutes' of head 'best' must be finite and at least 0"):
        best(RIDGE, minutes=-1.0).fit(X, y, groups=groups)


@pytest.mark.parametrize("kinds", [[0, 1], [-1] * 30, [1] * 30, [0.5] * 30, [0] * 15 + [2] * 15])
def test_kinds_that_make_no_sense_are_refused(kinds):
    X, y, _ = problem(30)
    for head in (best(RIDGE), make_head("kernel", gain=1.0, alpha=1.0)):
        with pytest.raises(DataError, match="`kinds` must be 30 numbers"):
            head.fit(X, y, kinds=kinds)


def test_extra_rows_never_enter_a_score():
    """Steps that have no use for extra rows score the same with and without them."""
    X, y, groups = problem(60)
    more, targets = shifted(40)
    kinds = np.repeat([0, 1], [60, 40])
    all_groups = np.concatenate([groups, 1000 + np.arange(40)])
    arrays = np.vstack([X, more]), np.vstack([y, targets])
    for noise in (0, 1):  # whatever the extra rows hold
        arrays[0][60:] += noise * np.random.default_rng(0).normal(size=more.shape)
        head = best(RIDGE, KNN).fit(*arrays, groups=all_groups, widths=BLOCKS, kinds=kinds)
        alone = best(RIDGE, KNN).fit(X, y, groups=groups, widths=BLOCKS)
        for one, other in zip(head.history, alone.history, strict=True):
            assert one["step"] == other["step"]
            assert one["cosine"] == pytest.approx(other["cosine"], abs=1e-6)
