"""The network of the finetune head: gradients against end-to-end training, start, steps and averages."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import timm
import torch
from torch import Tensor, nn

from img2prompt_cache.heads.finetune import Finetune
from img2prompt_cache.heads.neural.finetuning import Network, Tuning, cosine_loss, pool, predict
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.models.backbones.build import shorten_last
from img2prompt_cache.models.backbones.rewrites.batchnorm import fold_batchnorm
from img2prompt_cache.models.backbones.rewrites.depthwise import Depthwise
from img2prompt_cache.models.backbones.tail import Middle, Tail, TrainableTail, tail_of
from img2prompt_cache.numerics.metrics import mean_cosine, unit
from trunks import trunk_values

Problem = tuple[TrainableTail, np.ndarray, np.ndarray, Ridge]

SIZE, WIDTH = 64, 6
TOWER = {"image_size": SIZE, "layers": 3, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm vit": lambda: timm.create_model("test_vit", num_classes=0, img_size=SIZE),
    "timm resnet": lambda: timm.create_model("test_resnet", num_classes=0),
    "timm efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=0),
    "open_clip vit": lambda: open_clip.CLIP(embed_dim=32, vision_cfg=TOWER, text_cfg=TEXT).visual,
}


def make(kind: str) -> nn.Module:
    """A frozen, folded model with seeded weights, none of whose layers is an identity."""
    torch.manual_seed(0)
    model = MODELS[kind]().eval().requires_grad_(requires_grad=False)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape) if name.endswith("var") else torch.randn(tensor.shape)
            tensor.add_(noise, alpha=0.05)
    return fold_batchnorm(model, torch.zeros(1, 3, SIZE, SIZE))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def targets(count: int) -> np.ndarray:
    return unit(np.random.default_rng(1).normal(size=(count, WIDTH)))


def ending_of(model: nn.Module, k: int, blocks: int) -> TrainableTail:
    model = shorten_last(copy.deepcopy(model), images(1).shape)
    tail = tail_of(model, k)
    with torch.inference_mode():
        values, width = trunk_values(model, images(1), k), model(images(1)).shape[1]
    middle, last = Middle(tail.blocks[: k - blocks]), Tail(tail.blocks[k - blocks :], tail.head)
    return TrainableTail(middle, last, tuple(values.shape[1:]), width)


def probe_of(X: np.ndarray, y: np.ndarray) -> Ridge:
    return Ridge(alpha=10.0).fit(X, y)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("k", "blocks"), [(2, 2), (3, 1)])
def test_gradients_are_those_of_training_end_to_end_on_a_frozen_trunk(kind: str, k: int, blocks: int) -> None:
    model, pictures, y = make(kind), images(5), targets(5)
    with torch.inference_mode():
        features = model(pictures).numpy()
        values = trunk_values(model, pictures, k).clone().numpy()
    probe = probe_of(features, y)

    network = Network(ending_of(model, k, blocks), WIDTH)
    network.start(probe)
    network.train()
    cosine_loss(network(torch.from_numpy(values)), torch.from_numpy(y)).backward()

    whole = copy.deepcopy(model)
    trained = tail_of(whole, blocks).requires_grad_(requires_grad=True)
    output = nn.Linear(features.shape[1], WIDTH)
    output.load_state_dict(network.output.state_dict())
    found = output(whole(pictures))
    loss = 1 - (found / found.norm(dim=1, keepdim=True) * torch.from_numpy(y)).sum(1).mean()
    loss.backward()

    inner = ".block." if "vit" in kind else "."  # the last block of a ViT is shortened
    expected = {
        f"tail.{name}".replace(f"blocks.{blocks - 1}.", f"blocks.{blocks - 1}{inner}"): p.grad
        for name, p in trained.named_parameters()
    }
    expected |= {f"output.{name}": p.grad for name, p in output.named_parameters()}
    weights = network.weights()
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        assert value.grad is not None
        assert expected[name] is not None
        torch.testing.assert_close(value.grad, expected[name], rtol=1e-3, atol=1e-6, msg=name)
    assert sum(float(value.grad.abs().sum()) > 0 for value in weights.values()) > len(weights) // 2
    untrained = [p for name, p in network.named_parameters() if name not in weights]
    assert len(untrained) == sum(1 for _ in network.middle.parameters())
    assert all(p.grad is None for p in untrained)


@pytest.fixture(scope="module")
def problem() -> Problem:
    model = make("timm vit")
    with torch.inference_mode():
        values = trunk_values(model, images(40), 2).clone().numpy()
    ending, y = ending_of(model, 2, 2), targets(40)
    return ending, values, y, probe_of(pool(Network(ending, WIDTH), values), y)


def tuning(problem: Problem, **settings: object) -> Tuning:
    ending, values, y, probe = problem
    return Tuning(
        Finetune(**{"batch_size": 8, "max_epochs": 4, "precision": "fp32", **settings}),
        ending,
        probe,
        values,
        y,
    )


def test_the_untrained_network_is_its_probe(
    problem: Problem,
) -> None:
    ending, values, _, probe = problem
    net = tuning(problem)
    expected = probe.predict(pool(Network(ending, WIDTH), values))
    np.testing.assert_allclose(net.predict(values), expected, atol=1e-5)
    np.testing.assert_allclose(net.predict(values, 0.0), expected, atol=1e-5)


def test_training_lowers_the_loss_and_leaves_the_pre_trained_tail_alone(
    problem: Problem,
) -> None:
    ending, values, y, _ = problem
    before = {name: value.clone() for name, value in ending.tail.state_dict().items()}
    net = tuning(problem, mixup=0.0, lr=1e-2, pull=0.0, ema=0.0)
    start = mean_cosine(net.predict(values), y)
    losses = [net.train() for _ in range(4)]
    assert losses[-1] < losses[0]
    assert mean_cosine(net.predict(values), y) > start
    assert all(torch.equal(value, before[name]) for name, value in ending.tail.state_dict().items())


def moved(net: Tuning) -> dict[str, float]:
    """How far each tensor went, relative to its size, at most over its elements."""
    return {
        name: float(
            (value.detach() - net._start[name]).abs().max()
            / max(net._start[name].square().mean().sqrt(), 1e-3)
        )
        for name, value in net._weights.items()
    }


def test_a_first_step_is_relative_to_a_tensor_and_smaller_the_deeper_it_lies(
    problem: Problem,
) -> None:
    net = tuning(problem, lr=1e-3, layer_decay=0.5, pull=0.0, warmup=0.0, batch_size=40, max_epochs=10_000)
    net.train()
    for name, share in moved(net).items():
        depth = 0 if name.startswith("output") else 2 if name.startswith("tail.blocks.0") else 1
        # Where there is a gradient at all, the first step of Adam is as long as the rate.
        assert share == pytest.approx(1e-3 * 0.5**depth, rel=1e-2) or share < 1e-4, name


def test_the_pull_bounds_how_far_weights_go(
    problem: Problem,
) -> None:
    free = tuning(problem, lr=2e-2, pull=0.0, mixup=0.0)
    held = tuning(problem, lr=2e-2, pull=20.0, mixup=0.0)
    for net in (free, held):
        for _ in range(4):
            net.train()
    assert max(moved(held).values()) < 2 / 20
    assert max(moved(free).values()) > 2 * max(moved(held).values())


def test_weights_are_kept_and_mixed_with_the_start(
    problem: Problem,
) -> None:
    values = problem[1]
    net = tuning(problem, lr=1e-2)
    net.train()
    net.keep()
    kept, start = net.predict(values), net.predict(values, 0.0)
    net.train()
    np.testing.assert_array_equal(net.predict(values, 1.0), kept)
    assert np.abs(net.predict(values) - kept).max() > 1e-5
    half = net.predict(values, 0.5)
    assert np.abs(half - kept).max() > 1e-5
    assert np.abs(half - start).max() > 1e-5
    np.testing.assert_array_equal(predict(net.settle(0.5), values), half)


def test_batch_norm_and_dropout_of_the_tail_stay_as_in_prediction() -> None:
    model = timm.create_model("test_resnet", num_classes=0, drop_path_rate=0.5).eval()  # not folded
    model.requires_grad_(requires_grad=False)
    ending = ending_of(model, 2, 1)
    network = Network(ending, WIDTH)
    network.start(
        Ridge(alpha=1.0).fit(
            np.random.default_rng(0).normal(size=(9, ending.width)).astype(np.float32), targets(9)
        )
    )
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    assert statistics
    values = torch.randn(4, *ending.shape)
    network.train()
    first, second = network(values), network(values)
    assert torch.equal(first, second)
    assert all(torch.equal(value, statistics[name]) for name, value in network.named_buffers())


def test_bfloat16_products_keep_float32_weights(
    problem: Problem,
) -> None:
    ending, values, _, probe = problem
    networks = [Network(ending, WIDTH, precision=precision) for precision in ("fp32", "bf16")]
    for network in networks:
        network.start(probe)
    full, half = (predict(network, values) for network in networks)
    assert 1e-5 < np.abs(full - half).max() < 0.1
    net = tuning(problem, precision="bf16", lr=1e-2)
    net.train()
    assert {value.dtype for value in net.settle(1.0).weights().values()} == {torch.float32}
    assert np.isfinite(net.predict(values)).all()


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_bfloat16_where_it_is_multiplied_in_hardware(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    ending, values, _, probe = problem
    monkeypatch.setattr("img2prompt_cache.heads.neural.finetuning.has_bf16", lambda device: able)
    found = {}
    for precision in ("auto", "bf16" if able else "fp32"):
        network = Network(ending, WIDTH, precision=precision)
        network.start(probe)
        found[precision] = predict(network, values)
    np.testing.assert_array_equal(*found.values())


def test_wide_depthwise_kernels_are_trained_with_the_gradients_of_the_model_s_own() -> None:
    torch.manual_seed(0)
    model = (
        timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().requires_grad_(requires_grad=False)
    )
    ending = ending_of(fold_batchnorm(model, torch.zeros(1, 3, SIZE, SIZE)), 2, 2)
    network = Network(ending, WIDTH)
    own = ending.fresh()
    assert any(isinstance(module, Depthwise) for module in network.tail.modules())
    assert not any(isinstance(module, Depthwise) for module in own.modules())
    values = torch.randn(3, *ending.shape)
    for tail in (network.tail, own):
        tail(values).sin().sum().backward()
    for (name, found), expected in zip(network.tail.named_parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_dropout_is_of_the_pooled_features_and_in_training_only(
    problem: Problem,
) -> None:
    ending, values, _, probe = problem
    network = Network(ending, WIDTH, 0.5)
    network.start(probe)
    x = torch.from_numpy(values)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))
