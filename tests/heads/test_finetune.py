"""The finetune head on rows of a real tiny backbone's trunk."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sklearn.base import clone

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.data.trunk_rows import TrunkRows
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.finetune import Finetune
from img2prompt_cache.heads.neural import finetuning, probe
from img2prompt_cache.heads.neural.tail_network import TailNetwork, pool
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.models.backbones.tail import load_tail
from img2prompt_cache.numerics.metrics import mean_cosine, unit
from trunks import column_of

WIDTH = 6


class Made:
    """A mapped column of random rows, any number of them for the same memory, which counts those it gives."""

    def __init__(self, column):
        self.column, self.most = column, 0
        self.bank = np.random.default_rng(0).normal(size=(2048, *column.shape)).astype(np.float32)

    def __getitem__(self, rows):
        self.most = max(self.most, len(rows))
        return self.bank[rows % len(self.bank)]


@pytest.fixture(scope="module")
def column(tiny):
    return column_of(tiny.vit, 2)


@pytest.fixture(scope="module")
def teacher(column):
    """What the targets are: a linear map of the features of a tail that is not the pre-trained one."""
    network = TailNetwork(load_tail(column), WIDTH)
    network.start(
        Ridge(alpha=1.0).fit(
            np.random.default_rng(0).normal(size=(80, network.output.in_features)).astype(np.float32),
            unit(np.random.default_rng(1).normal(size=(80, WIDTH))),
        )
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.tail.parameters():
            value += 0.5 * value.square().mean().sqrt() * torch.randn(value.shape, generator=generator)
        network.output.weight *= 10
    return network


def problem(column, teacher, n=90, first=0):
    X = TrunkRows(Made(column), np.arange(first, first + n))
    with torch.inference_mode():
        y = teacher(torch.from_numpy(np.asarray(X)))
    return X, unit(y.numpy()), np.arange(n) // 3


def quick(**settings):
    return Finetune(**{"max_epochs": 4, "batch_size": 16, "lr": 2e-2, "folds": 3, **settings})


@pytest.fixture(scope="module")
def fitted(column, teacher):
    X, y, groups = problem(column, teacher)
    return quick().fit(X, y, groups=groups), X, y, groups


def test_it_beats_its_probe_on_rows_it_has_not_seen_where_the_tail_is_to_blame(fitted, column, teacher):
    head, *_ = fitted
    new, true, _ = problem(column, teacher, first=1000)
    probe = clone(head).set_params(**{**head.chosen, "epochs": 0}).fit(*fitted[1:3])
    assert head.chosen["epochs"] > 0
    assert head.score(new, true) > probe.score(new, true) + 0.001


@pytest.mark.parametrize("blocks", [None, 1])
def test_untrained_it_predicts_what_ridge_on_the_pooled_features_does(column, teacher, blocks):
    X, y, groups = problem(column, teacher)
    head = quick(epochs=0, blocks=blocks, precision="fp32").fit(X, y, groups=groups)
    pooled = np.array(pool(TailNetwork(load_tail(column), WIDTH), X))
    ridge = Ridge(folds=3).fit(pooled, y, groups=groups)
    assert head.chosen["alpha"] == pytest.approx(ridge.chosen["alpha"])
    np.testing.assert_allclose(head.predict(X), ridge.predict(pooled), atol=1e-4)


@pytest.mark.parametrize("lr", [1e-4, 2e-2, 0.5])
def test_it_is_never_worse_than_its_probe_on_the_rows_it_was_judged_on(column, teacher, lr):
    X, y, groups = problem(column, teacher)
    new, true, _ = problem(column, teacher, 30, first=1000)
    head = quick(lr=lr, pull=0.0, mixup=0.0, ema=0.0).fit(X, y, groups=groups, validation=(new, true))
    probe = quick(epochs=0).fit(X, y, groups=groups)
    assert head.history[0]["val_cosine"] == pytest.approx(probe.score(new, true), abs=1e-6)
    tried = [record["val_cosine"] for record in head.history if "mix" in record]
    assert head.score(new, true) == pytest.approx(max(head.history[0]["val_cosine"], *tried), abs=1e-6)
    assert head.score(new, true) >= probe.score(new, true) - 1e-7


@pytest.mark.parametrize("lr", [0.0, 0.5])
def test_where_training_does_not_help_the_head_is_its_probe(column, teacher, lr):
    X, _, groups = problem(column, teacher, 200)
    # A linear map of what the untrained tail says: there is nothing to gain.
    pooled = np.array(pool(TailNetwork(load_tail(column), WIDTH), X))
    y = unit((pooled - pooled.mean(axis=0)) @ np.random.default_rng(3).normal(size=(64, WIDTH)))
    head = quick(lr=lr, pull=0.0, mixup=0.0, ema=0.0, mix=1.0).fit(X, y, groups=groups)
    assert (head.chosen["epochs"], head.chosen["mix"]) == (0, 0.0)
    probe = quick(epochs=0, alpha=head.chosen["alpha"]).fit(X, y)
    np.testing.assert_array_equal(head.predict(X), probe.predict(X))


def test_epochs_and_mix_are_chosen_on_grouped_folds(fitted):
    head, X, y, groups = fitted
    fold = k_folds(groups, 3, 0)
    probes = [
        quick(epochs=0, alpha=head.chosen["alpha"]).fit(X[fold != at], y[fold != at]) for at in range(3)
    ]
    pred = np.concatenate([probe.predict(X[fold == at]) for at, probe in enumerate(probes)])
    true = np.concatenate([y[fold == at] for at in range(3)])
    assert head.history[0]["val_cosine"] == pytest.approx(mean_cosine(pred, true), abs=1e-6)
    epochs = [record for record in head.history if "mix" not in record]
    mixes = [record for record in head.history if "mix" in record]
    assert [record["epoch"] for record in epochs] == list(range(len(epochs)))
    assert list(epochs[0]) == ["epoch", "train_loss", "val_cosine", "val_mse", "seconds"]
    best = max(epochs[1:], key=lambda record: record["val_cosine"])
    assert {record["epoch"] for record in mixes} == {best["epoch"]} == {head.chosen["epochs"]}
    assert mixes[-1]["val_cosine"] == pytest.approx(best["val_cosine"], abs=1e-7)
    assert head.chosen["mix"] == max(mixes, key=lambda record: record["val_cosine"])["mix"]


def test_settings_are_scored_as_the_epochs_are_chosen(fitted):
    head, X, y, groups = fitted
    fold, told = k_folds(groups, 3, 0), []
    held = [fold == number for number in range(3)]
    again = clone(head)
    score = again.validate(X, y, held, groups=groups, widths=(1,), on_step=lambda *each: told.append(each))
    assert not [attribute for attribute in vars(again) if attribute.endswith("_")]
    epochs = [record for record in head.history if "mix" not in record]
    tried = [record["val_cosine"] for record in head.history if "mix" in record]
    assert score == pytest.approx(max(epochs[0]["val_cosine"], *tried), abs=1e-7)
    assert told == [(record["epoch"], pytest.approx(record["val_cosine"], abs=1e-7)) for record in epochs]
    given = clone(head).set_params(**head.chosen)
    assert given.validate(X, y, held, groups=groups, widths=(1,)) == pytest.approx(score, abs=2e-3)
    assert clone(given).set_params(epochs=0).validate(
        X, y, held, groups=groups, widths=(1,)
    ) == pytest.approx(epochs[0]["val_cosine"], abs=1e-6)


def test_predictions_are_unit_float32_and_arrays_are_rows_too(fitted):
    head, X, _, _ = fitted
    pred = head.predict(X[:7])
    assert (pred.dtype, pred.shape) == (np.float32, (7, WIDTH))
    np.testing.assert_allclose(np.linalg.norm(pred, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(head.predict(np.asarray(X[:7])), pred)
    assert head.predict(X[:0]).shape == (0, WIDTH)


def test_fitting_again_gives_the_same_bits_and_chooses_nothing_anew(fitted):
    head, X, y, groups = fitted
    again = clone(head).fit(X, y, groups=groups)
    np.testing.assert_array_equal(again.predict(X), head.predict(X))
    assert again.chosen == head.chosen == json.loads(json.dumps(head.chosen))
    given = clone(head).set_params(**head.chosen).fit(X, y, groups=groups)
    assert given.chosen == head.chosen
    np.testing.assert_array_equal(given.predict(X), head.predict(X))


def test_global_random_states_are_left_alone(column, teacher):
    X, y, _ = problem(column, teacher, 20)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    quick(epochs=1, alpha=1.0, dropout=0.1).fit(X, y).predict(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


@pytest.mark.parametrize("which", ["cnn", "vit"])
def test_state_survives_the_file_bit_for_bit_and_holds_the_tuned_tail_only(tiny, which):
    column = column_of(getattr(tiny, which), 3)
    X = TrunkRows(Made(column), np.arange(20))
    y = unit(np.random.default_rng(0).normal(size=(20, WIDTH)))
    head = quick(epochs=1, alpha=1.0, blocks=1).fit(X, y)
    state = head.state()
    assert all(value.flags.c_contiguous and " " not in key for key, value in state.items())
    tail = {f"tail.{name}" for name, _ in load_tail(column, 1).tail.named_parameters()}
    assert state.keys() == {*tail, "output.weight", "output.bias", "alpha", "epochs", "mix"}
    again = clone(head).bind([column]).load_state(load(save(state)))
    np.testing.assert_array_equal(again.predict(X), head.predict(X))
    assert again.chosen == head.chosen
    assert again.history == []


def test_a_tampered_state_is_refused(fitted, column):
    head, *_ = fitted
    state = head.state()
    empty = clone(head).bind([column])
    for key, value in state.items():
        with pytest.raises(Img2PromptError, match=f"lacks '{key}'"):
            empty.load_state({other: kept for other, kept in state.items() if other != key})
        with pytest.raises(Img2PromptError, match=f"'{key}'.*is not what was fitted"):
            empty.load_state({**state, key: value[None]})
        if value.dtype.kind == "f":
            with pytest.raises(Img2PromptError, match=f"'{key}'.*is not what was fitted"):
                empty.load_state({**state, key: np.full_like(value, np.nan)})


def test_rows_are_read_a_batch_at_a_time_and_memory_does_not_grow_with_them(tiny, monkeypatch):
    column = column_of(tiny.cnn, 2)
    monkeypatch.setattr(probe, "CHUNK", 64)
    peaks = {}
    for n in (400, 1600):
        made = Made(column)
        X, groups = TrunkRows(made, np.arange(n)), np.arange(n) // 3
        y = unit(np.random.default_rng(0).normal(size=(n, WIDTH)))
        tracemalloc.start()
        quick(max_epochs=1, batch_size=32, alpha=1.0).fit(X, y, groups=groups).predict(X)
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert made.most == 64  # rows of a prediction; a batch of training is smaller
    more = 1200 * np.prod(column.shape) * 4
    assert peaks[1600] - peaks[400] < more / 4


def test_views_are_trained_on_where_there_are_any(column, teacher):
    X, y, groups = problem(column, teacher, 30)

    class Seen(Made):
        views = 2
        asked = 0

        def __getitem__(self, rows):
            self.asked += len(rows)
            return super().__getitem__(rows + 10_000)

    seen = Seen(column)
    some = TrunkRows(X._trunk, np.arange(30), seen)
    settings = {"epochs": 2, "alpha": 1.0}
    trained = quick(**settings).fit(some, y, groups=groups)
    assert 20 < seen.asked < 58  # of 60 about two thirds
    plain = quick(**settings, views=False).fit(some, y, groups=groups)
    assert seen.asked < 58
    np.testing.assert_array_equal(plain.predict(X), quick(**settings).fit(X, y).predict(X))
    assert np.abs(trained.predict(X) - plain.predict(X)).max() > 1e-5


def test_two_rows_are_enough_once_settings_are_chosen(column, teacher):
    X, y, _ = problem(column, teacher, 2)
    assert np.isfinite(quick(epochs=2, alpha=1.0).fit(X, y).predict(X)).all()


def test_what_it_is_not_fitted_on(column, teacher):
    X, y, groups = problem(column, teacher, 12)
    with pytest.raises(UsageError, match="rows of a trunk column"):
        quick().fit(np.zeros((12, 5), np.float32), y)
    bound = quick().bind([column])
    with pytest.raises(Img2PromptError, match=r"\(12, 4\) do not fit a trunk of shape \(5, 64\)"):
        bound.fit(np.zeros((12, 4), np.float32), y)
    with pytest.raises(UsageError, match="trains one backbone, not 2"):
        quick().bind([column, column])
    with pytest.raises(ValueError, match="same number of rows"):
        quick().fit(X, y[1:])
    with pytest.raises(ValueError, match="do not fit"):
        quick().fit(X, y, groups=groups[1:])
    with pytest.raises(Img2PromptError, match="no pairs"):
        quick().fit(X[:0], y[:0])
    with pytest.raises(Img2PromptError, match="targets hold NaN"):
        quick().fit(X, np.full_like(y, np.nan))
    with pytest.raises(UsageError, match="one group"):
        quick(alpha=1.0).fit(X, y, groups=np.zeros(12, np.int64))
    with pytest.raises(UsageError, match="cannot fill 3 folds"):
        quick().fit(X, y, groups=np.arange(12) // 6)
    head = quick(epochs=0, alpha=1.0).fit(X, y)
    with pytest.raises(Img2PromptError, match=r"\(3, 5, 63\) do not fit"):
        head.predict(np.zeros((3, 5, 63), np.float32))
    other = replace(column, fingerprint={**column.fingerprint, "weights": "sha256:other"})
    with pytest.raises(Img2PromptError, match="weights was sha256:other"):
        quick().fit(TrunkRows(Made(other), np.arange(12)), y)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("blocks", 0, "at least 1, not 0"),
        ("lr", -1.0, "from 0 to 1"),
        ("lr", 1e38, "from 0 to 1"),
        ("lr", float("nan"), "from 0 to 1"),
        ("layer_decay", 0.0, "above 0 and at most 1"),
        ("layer_decay", 1.5, "above 0 and at most 1"),
        ("pull", -1.0, "at least 0"),
        ("ema", 1.0, "at least 0 and below 1"),
        ("dropout", 1.0, "at least 0 and below 1"),
        ("warmup", -0.1, "at least 0 and below 1"),
        ("clip", 0.0, "above 0"),
        ("mixup", -0.1, "at least 0"),
        ("batch_size", 0, "at least 1"),
        ("epochs", -1, "at least 0"),
        ("max_epochs", 0, "at least 1"),
        ("patience", 0, "at least 1"),
        ("mix", 1.1, "from 0 to 1"),
        ("alpha", 0.0, "finite and above 0"),
        ("precision", "bf61", "did you mean bf16"),
    ],
)
def test_settings_out_of_range(column, teacher, setting, value, words):
    X, y, _ = problem(column, teacher, 6)
    with pytest.raises(UsageError, match=f"setting '{setting}' of head 'finetune'.*{words}"):
        make_head("finetune", **{setting: value}).fit(X, y)


def test_training_that_diverges_is_told(column, teacher, monkeypatch):
    X, y, _ = problem(column, teacher, 20)
    monkeypatch.setattr(finetuning, "cosine_loss", lambda found, wanted: (found * math.inf).sum())
    with pytest.raises(Img2PromptError, match="finetune diverged in epoch 1; lower `lr`"):
        quick(epochs=1, alpha=1.0).fit(X, y)
