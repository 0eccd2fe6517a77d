from __future__ import annotations

import numpy as np
import pytest
import torch

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.neural import network
from img2prompt_cache.heads.neural.by_rows import settle
from img2prompt_cache.heads.neural.losses import AT_FIRST, infonce
from img2prompt_cache.heads.neural.pairs import Pairs
from img2prompt_cache.heads.neural.schedules import Schedule
from img2prompt_cache.heads.neural.training import Training, averaging, dropped_share
from img2prompt_cache.models import devices
from img2prompt_cache.numerics.metrics import unit


def problem(n=60, p=9, t=5):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)).astype(np.float32)
    return X, unit(np.tanh(X @ rng.normal(size=(p, t))) + 0.2)


def training(span=10, pairs=None, **settings):
    torch.manual_seed(0)
    head = settle(
        Mlp(**{"hidden": (8,), "batch_size": 16, "lr": 1e-2, "ema": 0.0, "precision": "fp32", **settings}), 0
    )
    return Training(head, pairs or Pairs(*problem()), Schedule(span, head.schedule, head.warmup))


def weights(net):
    return {key: value.clone() for key, value in net.network.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_an_epoch_is_the_loop_that_anybody_would_write(name, kind):
    X, y = problem()
    net = training(optimizer=name, weight_decay=0.0, dropout=0.0, batch_size=20, schedule="none")
    torch.manual_seed(0)
    copy = training(dropout=0.0)._trained
    torch.manual_seed(1)
    net.train()
    torch.manual_seed(1)
    optimizer = kind(
        copy.parameters(), 1e-2, weight_decay=0.0, **({"momentum": 0.9} if name == "sgd" else {})
    )
    x = torch.as_tensor((X - net.mean) / net.scale)
    copy.train()
    for rows in torch.split(torch.randperm(60), 20):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(copy(x[rows]), torch.as_tensor(y)[rows]).backward()
        optimizer.step()
    for key, value in copy.state_dict().items():
        np.testing.assert_allclose(net.network.state_dict()[key], value, atol=1e-6)


def test_biases_and_norms_are_not_decayed():
    net = training(optimizer="adamw", weight_decay=10.0, norm="batch")
    decayed = {len(group["params"]): group["weight_decay"] for group in net._optimizer.param_groups}
    assert decayed == {2: 10.0, 5: 0.0}  # two biases, the norm's two, the temperature


def test_the_average_is_the_exponential_one():
    net = training(ema=0.8, batch_size=60, max_epochs=100)
    wanted = None
    for _ in range(5):
        net.train()
        now = {key: value.double().clone() for key, value in net._trained.state_dict().items()}
        wanted = now if wanted is None else {key: 0.8 * wanted[key] + 0.2 * now[key] for key in now}
    for key, value in weights(net).items():
        if value.is_floating_point():
            np.testing.assert_allclose(value, wanted[key], atol=1e-5, err_msg=key)
            assert not torch.equal(value, net._trained.state_dict()[key])


def test_with_few_steps_the_average_reaches_back_an_eighth_of_them():
    assert averaging(settle(Mlp(), 0), 20_000) == 0.99
    assert averaging(settle(Mlp(), 0), 300) == pytest.approx(1 - 8 / 300)
    assert averaging(settle(Mlp(epochs=3), 0), 300) == averaging(settle(Mlp(), 0), 300)
    assert averaging(settle(Mlp(epochs=200), 0), 300) == pytest.approx(1 - 8 / 600)
    assert averaging(settle(Mlp(max_epochs=2), 0), 300) == 0
    assert averaging(settle(Mlp(ema=0.5), 0), 300) == 0.5
    assert averaging(settle(Mlp(ema=0.0), 0), 300) == 0


@pytest.mark.parametrize("rows", [1, 300, 2_000])
def test_up_to_2000_rows_half_of_the_inputs_are_dropped(rows):
    assert dropped_share(Mlp(), rows) == 0.5
    assert dropped_share(Mlp(dropout=0.2), rows) == 0.2


@pytest.mark.parametrize("rows", [2_000, 20_000, 10_000_000])
def test_beyond_the_penalty_that_dropout_amounts_to_stays_the_same(rows):
    share = dropped_share(Mlp(), rows)
    assert rows * share / (1 - share) == pytest.approx(2_000)
    assert dropped_share(Mlp(dropout=0.2), rows) == 0.2


def test_what_is_dropped_depends_on_the_rows_to_train_on():
    X, y = problem(40)
    few, many = Pairs(X, y), Pairs(np.tile(X, (100, 1)), np.tile(y, (100, 1)))
    shares = {
        layer.p
        for pairs in (few, many)
        for layer in training(pairs=pairs)._trained
        if isinstance(layer, network.Dropout)
    }
    assert shares == {0.5, 1 / 3}


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_a_norm_s_statistics_are_those_of_all_rows_without_dropout(ema):
    net = training(ema=ema, norm="batch", dropout=0.5, hidden=(8, 7), lr=0.1)
    for _ in range(2):
        net.train()
    x, _ = net._rows.sample()
    with torch.no_grad():
        for module in net.network.eval():
            if isinstance(module, torch.nn.BatchNorm1d):
                torch.testing.assert_close(module.running_mean, x.mean(0), rtol=0.05, atol=0.02)
                torch.testing.assert_close(module.running_var, x.var(0), rtol=0.05, atol=0.02)
            x = module(x)


def test_a_norm_s_statistics_do_not_depend_on_the_order_of_rows(monkeypatch):
    monkeypatch.setattr(network, "ROWS", 20)
    rows = torch.linspace(-3, 3, 60)[:, None].repeat(1, 4)
    layers = torch.nn.Sequential(torch.nn.BatchNorm1d(4))
    network.measure_norms(layers, rows)
    torch.testing.assert_close(layers[0].running_var, rows.var(0), rtol=0.1, atol=0.0)


def test_the_rate_follows_the_schedule_step_by_step():
    net = training(span=4, schedule="cosine", warmup=1.0, batch_size=15)
    seen = []
    step = net._optimizer.step

    def watched():
        seen.append([group["lr"] for group in net._optimizer.param_groups])
        return step()

    net._optimizer.step = watched
    for _ in range(2):
        net.train()
    middle = (np.arange(8) + 0.5) / 4
    wanted = 1e-2 * np.minimum(1, middle) * 0.5 * (1 + np.cos(np.pi * middle / 4))
    np.testing.assert_allclose(seen, np.column_stack([wanted, wanted]), rtol=1e-6)


def test_the_gradient_is_clipped():
    net = training(optimizer="sgd", lr=1.0, weight_decay=0.0, clip=1e-3, batch_size=60, dropout=0.0)
    before = weights(net)
    net.train()
    after = weights(net)
    moved = np.sqrt(sum(float(((after[key] - before[key]) ** 2).sum()) for key in before))
    assert moved == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("rows", "batch"), [(5, 4), (9, 4), (13, 4), (17, 16), (2, 128)])
def test_no_batch_is_left_with_a_single_row(rows, batch):
    X, y = problem(rows)
    training(hidden=(4,), norm="batch", batch_size=batch, pairs=Pairs(X, y)).train()


def test_a_norm_takes_two_rows():
    X, y = problem(1)
    with pytest.raises(UsageError, match="two rows to train on, not 1"):
        training(norm="batch", pairs=Pairs(X, y))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden": ()},
        {"norm": "batch", "dropout": 0.5, "ema": 0.8},
        {"residual": True, "optimizer": "adamw", "schedule": "cosine"},
        {"expand": 2, "optimizer": "sgd", "clip": 0.5},
        {"loss": "infonce"},
        {"loss": "angular"},
        {"loss": "mse:1,cosine:0.5"},
    ],
)
def test_bf16_multiplies_coarsely_and_keeps_weights_fine(settings):
    nets = [training(**{"dropout": 0.0, **settings}, precision=name) for name in ("fp32", "bf16")]
    losses = []
    for net in nets:
        torch.manual_seed(1)
        losses.append([net.train() for _ in range(9)])
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert {value.dtype for value in nets[1].network.state_dict().values() if value.ndim} == {torch.float32}


@pytest.mark.parametrize(("native", "same"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_that_is_native(native, same, monkeypatch):
    monkeypatch.setattr(devices, "has_bf16", lambda device: native)
    one, other = (training(precision=name) for name in ("auto", same))
    for net in (one, other):
        torch.manual_seed(1)
        net.train()
    for key, value in weights(other).items():
        assert torch.equal(weights(one)[key], value)


def test_a_contrastive_loss_is_computed_in_batches():
    net = training(loss="infonce", batch_size=20)
    X, y = problem()
    pred, means = net.evaluate(X, y)
    np.testing.assert_allclose(np.linalg.norm(pred, axis=1), 1, atol=1e-6)
    pairs = zip(torch.as_tensor(pred).split(20), torch.as_tensor(y).split(20), strict=True)
    wanted = np.mean([float(infonce(*pair, torch.tensor(AT_FIRST))) for pair in pairs])
    assert means == {"val_loss": pytest.approx(wanted)}
    assert net.loss() == pytest.approx(wanted)


def test_the_temperature_is_learned():
    net = training(loss="infonce")
    before = float(net._sharpness.detach())
    net.train()
    assert float(net._sharpness.detach()) != before


def test_a_view_or_the_image_is_drawn_for_each_row_and_all_alike():
    X, y = problem(3000)
    views = np.stack([X + 100, X + 200], axis=1).astype(np.float16)
    net = training(hidden=(), pairs=Pairs(X, y, views))
    rows = net._rows
    inputs = rows.with_views(rows.sample()[0]).numpy() * net.scale + net.mean
    drawn = np.rint((inputs - X) / 100)
    assert (drawn == drawn[:, :1]).all()
    np.testing.assert_allclose(inputs, X + 100 * drawn, atol=0.2)
    np.testing.assert_allclose(np.bincount(drawn[:, 0].astype(int)) / 3000, 1 / 3, atol=0.04)
    assert not np.array_equal(*(rows.with_views(rows.sample()[0]) for _ in range(2)))
