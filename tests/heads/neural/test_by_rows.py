from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.base import clone

from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.linear import Linear
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.neural import by_rows
from img2prompt_cache.heads.neural.by_rows import MANY, parts, passes, settle
from img2prompt_cache.heads.neural.training import Training
from img2prompt_cache.heads.wide_mlp import WideMlp
from img2prompt_cache.numerics.metrics import unit


@pytest.mark.parametrize("rows", [1, 500, 2_000, MANY - 1])
def test_few_rows_have_the_settings_they_always_had(rows):
    head = settle(Mlp(), rows)
    assert (head.hidden, head.norm, head.loss, head.lr, head.batch_size) == ((512,), "none", "mse", 3e-4, 128)
    assert head.weight_decay == 1e-4
    assert (head.schedule, head.max_epochs, head.patience, head.rows) == ("none", 100, 15, None)
    linear, wide = settle(Linear(), rows), settle(WideMlp(), rows)
    assert (linear.hidden, linear.loss, linear.lr, linear.max_epochs) == ((), "cosine", 1e-5, 100)
    assert (wide.hidden, wide.norm, wide.lr, wide.max_epochs, wide.patience) == ((), "batch", 1e-4, 40, 8)


def test_many_rows_take_larger_batches_and_fewer_passes():
    assert [round(passes(rows)) for rows in (10_000, 100_000, 1_000_000, 10_000_000)] == [27, 15, 8, 5]
    for kind in (Mlp, Linear, WideMlp):
        few, many = settle(kind(), 500), settle(kind(), 10_000_000)
        assert many.batch_size > few.batch_size
        assert many.schedule == "cosine"
        assert many.weight_decay == pytest.approx(few.weight_decay * 2_000 / 10_000_000)
        assert many.rows == 10_000_000
        assert many.max_epochs == round(passes(many.rows) * parts(many))
        assert parts(many) == 50
        assert parts(few) == 1


def test_what_is_given_stays():
    head = settle(Mlp(hidden=(7,), lr=0.1, loss="mse", max_epochs=3, patience=2), 10**6)
    assert (head.hidden, head.lr, head.loss, head.max_epochs, head.patience) == ((7,), 0.1, "mse", 3, 2)
    assert settle(Mlp(epochs=4), 10**6).batch_size == settle(Mlp(), 1).batch_size
    assert settle(Mlp(epochs=4, rows=10**6), 500).batch_size == settle(Mlp(), 10**6).batch_size
    assert settle(Mlp(rows=1), 10**6).get_params() == settle(Mlp(), 1).get_params()


def problem(n):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    return X, unit(np.tanh(X @ np.random.default_rng(5).normal(size=(6, 4))) + 0.2)


@pytest.mark.parametrize("name", ["mlp", "linear", "wide-mlp"])
def test_a_head_of_many_rows_survives_the_file_and_repeats(name, monkeypatch):
    monkeypatch.setattr(by_rows, "MANY", 500)
    monkeypatch.setattr(by_rows, "EPOCH", 400)
    monkeypatch.setattr(by_rows, "HELD", 60)
    monkeypatch.setattr(by_rows, "PASSES", 1.5)
    kind = type(make_head(name))
    monkeypatch.setattr(
        kind,
        "many",
        {**kind.many, "batch_size": 64, "lr": 1e-2} | ({"hidden": (9, 8)} if name == "mlp" else {}),
    )
    X, y = problem(1200)
    head = make_head(name, mix=0.5).fit(X, y)
    assert head.chosen["rows"] == 1200
    assert 0 < head.chosen["epochs"] <= round(passes(1200) * 3)
    again = clone(head).load_state(load(save(head.state())))
    assert again.chosen == head.chosen
    np.testing.assert_array_equal(again.predict(X), head.predict(X))
    repeated = clone(head).set_params(**head.chosen).fit(X, y)
    np.testing.assert_array_equal(repeated.predict(X), head.predict(X))
    if name == "mlp":  # what a later version would choose for as many rows makes no difference
        monkeypatch.setattr(Mlp, "many", {**Mlp.many, "hidden": (3,)})
        np.testing.assert_array_equal(clone(head).load_state(head.state()).predict(X), head.predict(X))


def test_rows_to_choose_on_are_capped(monkeypatch):
    monkeypatch.setattr(by_rows, "HELD", 60)
    seen = []
    evaluate = Training.evaluate

    def watched(self, X, y):
        seen.append(len(X))
        return evaluate(self, X, y)

    monkeypatch.setattr(Training, "evaluate", watched)
    Mlp(max_epochs=1, mix=1.0).fit(*problem(1200))
    assert seen == [60, 60]
