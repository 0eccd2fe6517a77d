from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from img2prompt_cache.data.inner_holdouts import hold_out_many
from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.student_project import (
    INNER,
    STUDENT_SPACE,
    StudentResnet50,
    StudentTunedResnet,
    StudentVit,
)
from img2prompt_cache.numerics.metrics import unit


def problem(n=160, p=10, t=6):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)).astype(np.float32)
    return X, unit(np.tanh(X @ rng.normal(size=(p, t))) + 0.3 * rng.normal(size=(n, t))), np.arange(n) // 4


def tuned(**settings):
    return StudentTunedResnet(**{"trials": 4, "hidden": (8,), "epochs": 3, **settings})


@pytest.mark.parametrize("kind", [StudentResnet50, StudentVit])
def test_the_presets_are_the_projects(kind):
    head = kind()
    assert (head.epochs, head.lr, head.batch_size, head.dropout) == (15, 1e-4, 32, 0.3)
    assert (head.loss, head.optimizer, tuple(head.hidden)) == ("mse", "adam", ())
    X, y, groups = problem()
    head.fit(X, y, groups=groups)
    assert [record["epoch"] for record in head.history] == list(range(16))
    assert head.chosen == {"epochs": 15}


def test_it_is_what_an_mlp_makes_of_all_rows_and_its_curve_that_of_rows_held_out_from_these():
    X, y, groups = problem()
    head = StudentResnet50(seed=3).fit(X, y, groups=groups)
    plain = Mlp(
        hidden=(), dropout=0.3, lr=1e-4, batch_size=32, weight_decay=0.0, epochs=15, seed=3, loss="mse",
        optimizer="adam", ema=0.0, schedule="none", precision="fp32",
    )  # fmt: skip
    assert np.array_equal(head.predict(X), clone(plain).fit(X, y).predict(X))
    held = hold_out_many(groups, INNER, 3)
    assert not {*groups[~held]} & {*groups[held]}
    sides = [(X[rows], y[rows]) for rows in (~held, held)]
    curve = clone(plain).fit(*sides[0], validation=sides[1])
    pred = curve.network_(curve_inputs(curve, sides[1][0])).detach().numpy()
    assert head.history[-1]["val_loss"] == pytest.approx(
        float(np.square(pred - sides[1][1]).mean()), rel=1e-5
    )
    assert [record["val_loss"] for record in head.history] == [r["val_loss"] for r in curve.history]


def curve_inputs(head, X):
    import torch

    return torch.as_tensor((X - head.mean_) / head.scale_)


def test_the_search_draws_from_the_space_without_repeats_and_keeps_every_curve():
    X, y, groups = problem()
    head = tuned(trials=6).fit(X, y, groups=groups)
    assert all(type(value) in (int, float) for record in head.history for value in record.values())
    ends = [record for record in head.history if record["epoch"] == 3]
    assert [record["trial"] for record in ends] == [0, 1, 2, 3, 4, 5]
    draws = {
        tuple(record[name] for name in ("lr", "batch_size", "dropout", "weight_decay", "sgd"))
        for record in ends
    }
    assert len(draws) == 6
    for record in ends:
        assert all(
            record[name] in STUDENT_SPACE[name] for name in ("lr", "batch_size", "dropout", "weight_decay")
        )
    best = min(ends, key=lambda record: record["val_loss"])
    for name in ("lr", "batch_size", "dropout", "weight_decay"):
        assert head.chosen[name] == best[name]
    assert (head.chosen["optimizer"] == "sgd") == best["sgd"]
    again = tuned(**head.chosen).fit(X, y, groups=groups)
    assert {record["trial"] for record in again.history} == {0}
    assert again.history[-1]["val_loss"] == best["val_loss"]


def test_what_is_given_is_not_drawn():
    X, y, groups = problem()
    head = tuned(lr=0.01, optimizer="sgd", trials=500, batch_size=64, dropout=0.2).fit(X, y, groups=groups)
    assert len({record["trial"] for record in head.history}) == 3  # three penalties are left to try
    assert {record["lr"] for record in head.history} == {0.01}
    assert head.chosen["optimizer"] == "sgd"


def test_other_seeds_draw_otherwise():
    assert tuned(seed=1)._draw() != tuned(seed=2)._draw()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"trials": 0}, "setting 'trials' of head 'seed-tuned-resnet' must be at least 1"),
        ({"optimizer": "adamw"}, "unknown value 'adamw' of setting 'optimizer' of head 'seed-tuned-resnet'"),
        ({"dropout": 1.0}, "'dropout' .* below 1"),
        ({"hidden": (0,)}, "width 1…65536"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    X, y, groups = problem()
    with pytest.raises(UsageError, match=words):
        tuned(**wrong).fit(X, y, groups=groups)


@pytest.mark.parametrize("head", [StudentResnet50(), StudentVit(), StudentTunedResnet()])
def test_one_group_cannot_be_watched(head):
    X, y, _ = problem(8)
    with pytest.raises(UsageError, match=r"cannot hold out rows: all 8 are one group"):
        head.fit(X, y, groups=np.zeros(8, int))
