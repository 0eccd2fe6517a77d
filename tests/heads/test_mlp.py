from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sklearn.base import clone
from sklearn.linear_model import Ridge as SklearnRidge

from img2prompt_cache.data.inner_holdouts import hold_out_many
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads.linear import Linear
from img2prompt_cache.heads.mean import Mean
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.heads.wide_mlp import WideMlp
from img2prompt_cache.numerics.blending import mix
from img2prompt_cache.numerics.metrics import mean_cosine, mse, unit


def problem(n=200, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 12)).astype(np.float32) * 4 + 2
    y = unit(np.tanh(X @ np.random.default_rng(5).normal(size=(12, 6)) * 0.3) + 0.3 * rng.normal(size=(n, 6)))
    return X, y, np.arange(n) // 4


def small(**settings):
    return Mlp(**{"hidden": (16,), "batch_size": 32, "lr": 3e-3, "ema": 0.0, **settings})


def test_it_starts_as_the_mean_head():
    X, y, _ = problem()
    head = small(lr=0.0, epochs=1).fit(X, y)
    np.testing.assert_allclose(head.predict(X), Mean().fit(X, y).predict(X), atol=1e-6)


def test_a_linear_one_without_penalty_reaches_least_squares():
    X, y, _ = problem()
    head = Mlp(hidden=(), dropout=0, weight_decay=0, ema=0, lr=3e-3, batch_size=200, epochs=1500).fit(X, y)
    design = np.column_stack([X, np.ones(len(X))]).astype(float)
    best = design @ np.linalg.lstsq(design, y.astype(float), rcond=None)[0]
    assert head.history[-1]["train_loss"] == pytest.approx(np.square(best - y).mean(), rel=1e-3)
    assert mean_cosine(head.predict(X), unit(best)) > 0.999


@pytest.mark.parametrize("loss", ["mse", "cosine"])
@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 3e-3), ("adamw", 3e-3), ("sgd", 0.3)])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
def test_every_kind_learns(loss, optimizer, lr, hidden):
    X, y, _ = problem()
    head = small(loss=loss, optimizer=optimizer, lr=lr, hidden=hidden, dropout=0.1, epochs=15).fit(X, y)
    losses = [record["train_loss"] for record in head.history]
    assert losses[-1] < losses[0]
    new, true, _ = problem(seed=1)
    assert head.score(new, true) > Mean().fit(X, y).score(new, true) + 0.05


def test_history_holds_what_happened():
    X, y, _ = problem()
    new, true, _ = problem(seed=1)
    head = small(epochs=4).fit(X, y, validation=(new, true))
    assert [record["epoch"] for record in head.history] == [0, 1, 2, 3, 4]
    assert list(head.history[0]) == ["epoch", "train_loss", "val_loss", "val_cosine", "val_mse", "seconds"]
    mean = Mean().fit(X, y)
    assert head.history[0]["val_cosine"] == pytest.approx(mean.score(new, true), abs=1e-6)
    assert head.history[0]["train_loss"] == pytest.approx(np.square(y - y.mean(axis=0)).mean(), rel=1e-5)
    assert head.history[-1]["val_cosine"] == head.score(new, true)
    assert head.history[-1]["val_mse"] == mse(head.predict(new), true)
    assert head.chosen == {"epochs": 4}


def test_the_best_epoch_on_validation_rows_is_kept():
    X, y, _ = problem(60)
    new, true, _ = problem(seed=1)
    head = small(lr=3e-2, dropout=0, weight_decay=0, patience=4).fit(X, y, validation=(new, true))
    watched = [record["val_cosine"] for record in head.history]
    assert head.chosen["epochs"] == np.argmax(watched) > 0
    assert len(watched) == head.chosen["epochs"] + 1 + 4
    assert head.score(new, true) == max(watched)
    again = small(lr=3e-2, dropout=0, weight_decay=0, **head.chosen).fit(X, y)
    assert np.array_equal(again.predict(new), head.predict(new))


def test_with_many_rows_epochs_are_chosen_on_a_held_out_tenth_then_all_rows_are_fitted():
    X, y, groups = problem(1000)
    head = small(max_epochs=4).fit(X, y, groups=groups)
    held = hold_out_many(groups, 0.1, 0)
    watched = small(max_epochs=4).fit(X[~held], y[~held], validation=(X[held], y[held]))
    assert head.chosen == watched.chosen
    without_time = [[{**record, "seconds": 0} for record in each.history] for each in (head, watched)]
    assert without_time[0] == without_time[1]
    assert np.array_equal(head.predict(X), small(**head.chosen).fit(X, y).predict(X))


def test_with_few_rows_epochs_are_chosen_on_grouped_folds_in_turn():
    # Without dropout or an order of rows to draw, what one fold does is the same beside others and alone.
    X, y, groups = problem(120)
    settings = {"dropout": 0, "batch_size": 120, "hidden": (), "lr": 0.3, "max_epochs": 6, "optimizer": "sgd"}
    head = small(**settings, mix=1.0).fit(X, y, groups=groups)
    fold = k_folds(groups, 3, 0)
    alone = [
        small(**settings, epochs=6).fit(X[fold != i], y[fold != i], validation=(X[fold == i], y[fold == i]))
        for i in range(3)
    ]
    cosines = np.array([[record["val_cosine"] for record in each.history] for each in alone])
    wanted = np.average(cosines, axis=0, weights=np.bincount(fold))
    np.testing.assert_allclose([record["val_cosine"] for record in head.history], wanted, atol=1e-5)
    assert head.chosen["epochs"] == wanted.argmax()
    assert np.array_equal(head.predict(X), small(**{**settings, **head.chosen}).fit(X, y).predict(X))


def test_settings_are_scored_as_the_epochs_are_chosen():
    X, y, groups = problem(120)
    fold = k_folds(groups, 3, 0)
    held = [fold == number for number in range(3)]
    options = {"groups": groups, "widths": (12,)}
    seen = []
    score = small(max_epochs=6).validate(X, y, held, **options, on_step=lambda *step: seen.append(step))
    head = small(max_epochs=6, mix=1.0).fit(X, y, groups=groups)
    assert seen == [(record["epoch"], record["val_cosine"]) for record in head.history]
    assert score == max(cosine for _, cosine in seen)
    last = small(epochs=3).validate(X, y, held, **options)
    assert last == head.history[3]["val_cosine"]


def test_it_stays_the_mean_head_where_training_does_not_help():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 30)).astype("f"), unit(rng.normal(size=(80, 6)) + 1)
    head = small(lr=0.1, dropout=0, patience=3).fit(X, y)
    assert head.chosen == {"epochs": 0}
    assert len(head.history) == 4
    np.testing.assert_allclose(head.predict(X), Mean().fit(X, y).predict(X), atol=1e-6)
    again = small(**head.chosen).load_state(head.state())
    assert np.array_equal(again.predict(X), head.predict(X))


def linear_problem(n=240, seed=0):
    """Targets that are linear in the features but for noise, and features that ridge has to shrink."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 40)).astype(np.float32)
    y = X @ np.random.default_rng(5).normal(size=(40, 6)) * 0.2 + 0.8 * rng.normal(size=(n, 6)) + 1
    return X, unit(y), np.arange(n) // 3


@pytest.mark.parametrize("widths", [(40,), (30, 10)])
@pytest.mark.parametrize("epochs", [None, 0, 2])
def test_without_a_say_of_the_network_it_is_ridge(epochs, widths):
    X, y, groups = linear_problem()
    head = small(mix=0.0, epochs=epochs, max_epochs=2).fit(X, y, groups=groups, widths=widths)
    fitted = Ridge(head.chosen["alpha"]).fit(X, y, widths=widths)
    np.testing.assert_allclose(head.predict(X), fitted.predict(X), atol=1e-6)
    # As scikit-learn has it, on features whose blocks are scaled to a total variance of 1.
    blocks = np.split(X.astype(float), np.cumsum(widths)[:-1], axis=1)
    scaled = [
        block / np.sqrt(block.var(axis=0).sum() * alpha)
        for block, alpha in zip(blocks, head.chosen["alpha"], strict=True)
    ]
    Z = np.concatenate(scaled, axis=1)
    np.testing.assert_allclose(head.predict(X), unit(SklearnRidge(1.0).fit(Z, y).predict(Z)), atol=1e-5)


@pytest.mark.parametrize("kind", [Mlp, WideMlp, Linear])
def test_on_a_linear_problem_it_is_no_worse_than_ridge(kind):
    X, y, groups = linear_problem()
    new, true, _ = linear_problem(2000, seed=1)
    settings = {"max_epochs": 10, "lr": 1e-2, "batch_size": 40}
    settings |= {"expand": 2} if kind is WideMlp else {"hidden": (16,)} if kind is Mlp else {}
    alone = kind(**settings, mix=1.0).fit(X, y, groups=groups).score(new, true)
    ridge = Ridge().fit(X, y, groups=groups).score(new, true)
    assert alone < ridge - 0.01
    assert kind(**settings).fit(X, y, groups=groups).score(new, true) > ridge - 0.002


@pytest.mark.parametrize("n", [120, 1000])
def test_ridge_is_fitted_without_the_rows_that_choose_the_mix(n, monkeypatch):
    X, y, groups = linear_problem(n)
    seen = []
    fit = Ridge.fit

    def watched(head, X, *rest, groups, **more):
        seen.append({*groups.tolist()})
        return fit(head, X, *rest, groups=groups, **more)

    monkeypatch.setattr(Ridge, "fit", watched)
    head = small(max_epochs=2).fit(X, y, groups=groups)
    *inner, last = seen
    fold = k_folds(groups, 3, 0)
    held = [fold == number for number in range(3)] if n < 1000 else [hold_out_many(groups, 0.1, 0)]
    assert inner == [{*groups[~out].tolist()} for out in held]
    assert last == {*groups.tolist()}
    # The held-out rows' targets have no influence on the penalty: with others it is the same.
    alphas = [Ridge(seed=0).fit(X[~out], y[~out], groups=groups[~out]).alpha_[0] for out in held]
    assert head.chosen["alpha"] == pytest.approx([np.exp(np.mean(np.log(alphas)))])


def test_an_epoch_is_judged_by_its_best_mix():
    X, y, groups = linear_problem(120)
    head = small(max_epochs=4).fit(X, y, groups=groups)
    alone = small(max_epochs=4, mix=1.0).fit(X, y, groups=groups)
    for record, other in zip(head.history, alone.history, strict=True):
        assert record["network_cosine"] == other["val_cosine"]
        assert record["val_cosine"] >= record["network_cosine"] - 1e-9
    scores = [record["val_cosine"] for record in head.history]
    assert head.chosen["epochs"] == np.argmax(scores)
    assert head.chosen["mix"] == head.history[np.argmax(scores)]["mix"]


def test_the_prediction_is_the_mean_of_both():
    X, y, groups = problem()
    head = small(mix=0.3, alpha=2.0, epochs=5).fit(X, y, groups=groups)
    both = [small(epochs=5).fit(X, y).predict(X), Ridge(2.0).fit(X, y).predict(X)]
    np.testing.assert_allclose(head.predict(X), mix(both, np.array([0.3, 0.7])), atol=1e-6)
    assert head.chosen == {"epochs": 5, "mix": 0.3, "alpha": [2.0]}
    X, y, groups = problem(60)
    fold = k_folds(groups, 3, 0)
    held = [fold == number for number in range(3)]
    score = small(mix=0.3, epochs=2).validate(X, y, held, groups=groups, widths=(12,))
    assert score > small(epochs=2).validate(X, y, held, groups=groups, widths=(12,))


def test_the_network_alone_needs_no_ridge(monkeypatch):
    X, y, groups = problem(60)
    monkeypatch.setattr(Ridge, "fit", None)
    for settings in ({"mix": 1.0, "max_epochs": 2}, {"epochs": 2}):
        head = small(**settings).fit(X, y, groups=groups)
        assert {*head.chosen} == {"epochs"}
        assert not [name for name in head.state() if name.startswith("ridge")]
    assert small(epochs=1).fit(X, y, groups=np.zeros(60, int)).chosen == {"epochs": 1}


def test_with_two_groups_there_are_no_folds_for_ridge():
    X, y, _ = problem(60)
    groups = np.arange(60) % 2
    assert {*small(max_epochs=2).fit(X, y, groups=groups).chosen} == {"epochs"}
    with pytest.raises(UsageError, match="folds"):
        small(max_epochs=2, mix=0.5).fit(X, y, groups=groups)
    assert small(max_epochs=2, mix=0.5, alpha=1.0).fit(X, y, groups=groups).chosen["mix"] == 0.5


def test_training_goes_on_while_the_network_alone_improves():
    X, y, groups = linear_problem()
    head = small(lr=1e-4, max_epochs=60, patience=3).fit(X, y, groups=groups)
    assert len(head.history) == 61


def test_a_mix_survives_the_file_and_repeats():
    settings = {"max_epochs": 40, "dropout": 0.0, "lr": 1e-2}
    X, y, groups = problem(120)
    head = small(**settings).fit(X, y, groups=groups)
    assert 0 < head.chosen["mix"] < 1
    again = small(**settings | head.chosen).load_state(load(save(head.state())))
    assert again.chosen == head.chosen
    assert np.array_equal(again.predict(X), head.predict(X))
    repeated = small(**settings | head.chosen).fit(X, y, groups=groups)
    assert np.array_equal(repeated.predict(X), head.predict(X))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"mix": np.array([1.5])}, "'mix'"),
        ({"mix": np.array([np.nan])}, "'mix'"),
        ({"mix": np.zeros(2)}, "'mix'"),
        ({"ridge.coef": np.zeros((12, 5), np.float32)}, r"'ridge\.coef'"),
        ({"ridge.coef": np.zeros((11, 6), np.float32)}, r"'ridge\.coef'"),
        ({"ridge.mean": np.zeros(5, np.float32)}, r"'ridge\.mean'"),
        ({"ridge.intercept": None}, r"lacks 'ridge\.intercept'"),
    ],
)
def test_a_broken_mix_is_refused(broken, words):
    X, y, groups = problem(60)
    head = small(epochs=1, mix=0.5, alpha=1.0).fit(X, y, groups=groups)
    state = {name: array for name, array in {**head.state(), **broken}.items() if array is not None}
    with pytest.raises(Img2PromptError, match=words):
        clone(head).load_state(state)


def test_one_group_needs_epochs():
    X, y, _ = problem(8)
    with pytest.raises(UsageError, match=r"all 8 are one group .* give `epochs`"):
        small().fit(X, y, groups=np.zeros(8, int))
    assert small(epochs=1).fit(X, y, groups=np.zeros(8, int)).chosen == {"epochs": 1}


def test_seeds_differ():
    X, y, _ = problem()
    one, two = (small(epochs=2, seed=seed).fit(X, y).predict(X) for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_divergence_is_told():
    X, y, _ = problem()
    with pytest.raises(Img2PromptError, match=r"diverged in epoch \d+; lower `lr`, which is 1e\+30"):
        small(optimizer="sgd", lr=1e30, epochs=9).fit(X, y)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"optimizer": "adm"}, "did you mean adam"),
        ({"loss": "cosin"}, "did you mean cosine"),
        ({"lr": -1.0}, "'lr' of head 'mlp' must be at least 0"),
        ({"lr": float("nan")}, "'lr' of head 'mlp' must be at least 0"),
        ({"dropout": 1.0}, "'dropout' .* below 1"),
        ({"batch_size": 0}, "'batch_size' .* at least 1"),
        ({"epochs": -1}, "'epochs' .* at least 0"),
        ({"patience": 0}, "'patience' .* at least 1"),
        ({"norm": "bach"}, "did you mean batch"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"precision": "bf61"}, "did you mean bf16"),
        ({"loss": "mse:0"}, "weight above 0"),
        ({"ema": 1.0}, "'ema' .* below 1"),
        ({"mix": 1.5}, "'mix' .* from 0 to 1"),
        ({"alpha": 0.0}, "'alpha' .* finite and above 0"),
        ({"alpha": [1.0, float("nan")]}, "'alpha' .* finite and above 0"),
        ({"clip": -1.0}, "'clip' .* at least 0"),
        ({"warmup": -1.0}, "'warmup' .* at least 0"),
        ({"norm": "batch", "batch_size": 3}, "'batch_size' .* at least 4 with"),
        ({"expand": 10**9}, "width 1…65536"),
        ({"hidden": (16, 0)}, "width 1…65536"),
        ({"hidden": (10**9,)}, "width 1…65536"),
        ({"hidden": (1.5,)}, "width 1…65536"),
        ({"hidden": (2,) * 17}, "at most 16 hidden layers"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    X, y, _ = problem()
    with pytest.raises(UsageError, match=words):
        small(**wrong).fit(X, y)


def test_layers_of_other_settings_are_refused():
    X, y, _ = problem()
    state = small(epochs=1).fit(X, y).state()
    with pytest.raises(Img2PromptError, match="is not what was fitted"):
        small(hidden=(17,)).load_state(state)
    with pytest.raises(Img2PromptError, match="lacks"):
        small(hidden=(16, 16)).load_state(state)


@pytest.mark.parametrize("hidden", [[10**30], [10**9], ["wide"], [16] * 1000])
def test_hidden_layers_that_nobody_fitted_are_refused_before_anything_is_allocated(hidden):
    X, y, _ = problem()
    state = small(epochs=1).fit(X, y).state()
    with pytest.raises(UsageError, match="at most 16 hidden layers"):
        small(hidden=hidden).load_state(state)
    # 64 GB, had they been made to look at their shapes.
    with pytest.raises(Img2PromptError, match=r"is not what was fitted|lacks"):
        small(hidden=[1 << 16, 1 << 16] * 2).load_state(state)


def test_a_plateau_finds_its_drops_and_a_clone_repeats_them():
    X, y, groups = problem(1000)
    settings = {"schedule": "plateau", "patience": 6, "max_epochs": 40, "lr": 1e-1, "dropout": 0}
    head = small(**settings).fit(X, y, groups=groups)
    assert head.chosen["drops"]
    assert max(head.chosen["drops"]) < head.chosen["epochs"]
    again = small(**{**settings, **head.chosen}).fit(X, y, groups=groups)
    assert again.chosen == head.chosen
    assert np.array_equal(again.predict(X), head.predict(X))
    assert small(**settings).load_state(head.state()).chosen == head.chosen
    with pytest.raises(UsageError, match="give `drops` with `epochs`"):
        small(schedule="plateau", epochs=3).fit(X, y)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_layer_and_running_statistic_survives_the_file_bit_for_bit(norm, residual):
    X, y, _ = problem()
    head = small(norm=norm, residual=residual, hidden=(8, 8), epochs=3, ema=0.9).fit(X, y)
    again = clone(head).load_state(load(save(head.state())))
    state = head.network_.state_dict()
    assert {*state} == {*again.network_.state_dict()}
    assert any("running_var" in key for key in state) == (norm == "batch")
    for key, value in again.network_.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, state[key])
    assert np.array_equal(again.predict(X), head.predict(X))


def test_views_stand_for_their_rows():
    X, y, groups = problem()
    views = np.stack([X, X], axis=1)
    quick = {"epochs": 3, "dropout": 0}
    seen = small(**quick, views=True).fit(X, y, views=views)
    other = small(**quick, views=True).fit(X, y, views=views[::-1].copy())
    assert not np.array_equal(seen.predict(X), other.predict(X))
    unasked = small(**quick).fit(X, y, views=views)
    assert np.array_equal(unasked.predict(X), small(**quick).fit(X, y).predict(X))
    many = small(views=True, max_epochs=3).fit(X, y, groups=groups, views=views.astype(np.float16))
    assert many.chosen["epochs"] <= 3


def test_views_that_cannot_be_used_are_refused():
    X, y, _ = problem()
    with pytest.raises(UsageError, match="`views=True` needs views"):
        small(views=True).fit(X, y)
    with pytest.raises(ValueError, match="do not fit"):
        small(views=True).fit(X, y, views=X[:, None, 1:])
    broken = X[:, None].copy()
    broken[3] = np.nan
    with pytest.raises(Img2PromptError, match="views hold NaN"):
        small(views=True).fit(X, y, views=broken)


def test_a_step_does_not_carry_the_straight_way_further_than_the_targets_lie():
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(400, 8))
    X = (causes @ rng.normal(size=(8, 800)) + rng.normal(size=(400, 800))).astype(np.float32)
    y = unit(causes @ rng.normal(size=(8, 384)) + 1)
    step = {"epochs": 1, "batch_size": 400, "dropout": 0.0, "ema": 0.0, "residual": True}
    head = Mlp(hidden=(64,), **step).fit(X, y)
    moved = head.network_(torch.as_tensor((X - head.mean_) / head.scale_)).detach().numpy() - y.mean(axis=0)
    assert 0 < np.sqrt(np.square(moved).mean()) < y.std(axis=0).mean()
