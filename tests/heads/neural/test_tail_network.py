"""The network of the finetune head: gradients against end-to-end training, precision, dropout."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from torch import nn

from img2prompt_cache.heads.neural.finetuning import cosine_loss
from img2prompt_cache.heads.neural.tail_network import TailNetwork, predict
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.models import devices
from img2prompt_cache.models.backbones.rewrites.batchnorm import fold_batchnorm
from img2prompt_cache.models.backbones.rewrites.depthwise import Depthwise
from img2prompt_cache.models.backbones.tail import tail_of
from tails import MODELS, SIZE, WIDTH, Problem, images, make, make_problem, probe_of, targets, trainable_tail
from trunks import trunk_values


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("k", "blocks"), [(2, 2), (3, 1)])
def test_gradients_are_those_of_training_end_to_end_on_a_frozen_trunk(kind: str, k: int, blocks: int) -> None:
    model, pictures, y = make(kind), images(5), targets(5)
    with torch.inference_mode():
        features = model(pictures).numpy()
        values = trunk_values(model, pictures, k).clone().numpy()
    probe = probe_of(features, y)

    network = TailNetwork(trainable_tail(model, k, blocks), WIDTH)
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
    return make_problem()


def test_batch_norm_and_dropout_of_the_tail_stay_as_in_prediction() -> None:
    model = timm.create_model("test_resnet", num_classes=0, drop_path_rate=0.5).eval()  # not folded
    model.requires_grad_(requires_grad=False)
    tail = trainable_tail(model, 2, 1)
    network = TailNetwork(tail, WIDTH)
    network.start(
        Ridge(alpha=1.0).fit(
            np.random.default_rng(0).normal(size=(9, tail.width)).astype(np.float32), targets(9)
        )
    )
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    assert statistics
    values = torch.randn(4, *tail.shape)
    network.train()
    first, second = network(values), network(values)
    assert torch.equal(first, second)
    assert all(torch.equal(value, statistics[name]) for name, value in network.named_buffers())


def test_bfloat16_products_keep_float32_weights(
    problem: Problem,
) -> None:
    tail, values, _, probe = problem
    networks = [TailNetwork(tail, WIDTH, precision=precision) for precision in ("fp32", "bf16")]
    for network in networks:
        network.start(probe)
    full, half = (predict(network, values) for network in networks)
    assert 1e-5 < np.abs(full - half).max() < 0.1


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_bfloat16_where_it_is_multiplied_in_hardware(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    tail, values, _, probe = problem
    monkeypatch.setattr(devices, "has_bf16", lambda device: able)
    found = {}
    for precision in ("auto", "bf16" if able else "fp32"):
        network = TailNetwork(tail, WIDTH, precision=precision)
        network.start(probe)
        found[precision] = predict(network, values)
    np.testing.assert_array_equal(*found.values())


def test_wide_depthwise_kernels_are_trained_with_the_gradients_of_the_model_s_own() -> None:
    torch.manual_seed(0)
    model = (
        timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().requires_grad_(requires_grad=False)
    )
    tail = trainable_tail(fold_batchnorm(model, torch.zeros(1, 3, SIZE, SIZE)), 2, 2)
    network = TailNetwork(tail, WIDTH)
    own = tail.fresh()
    assert any(isinstance(module, Depthwise) for module in network.tail.modules())
    assert not any(isinstance(module, Depthwise) for module in own.modules())
    values = torch.randn(3, *tail.shape)
    for tail in (network.tail, own):
        tail(values).sin().sum().backward()
    for (name, found), expected in zip(network.tail.named_parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_dropout_is_of_the_pooled_features_and_in_training_only(
    problem: Problem,
) -> None:
    tail, values, _, probe = problem
    network = TailNetwork(tail, WIDTH, 0.5)
    network.start(probe)
    x = torch.from_numpy(values)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_frozen_blocks_that_another_network_moved_are_moved_back() -> None:
    network = TailNetwork(trainable_tail(make("timm vit"), 3, 1), WIDTH, device="cpu")
    assert network.place("cpu") is network
    network.middle.to("meta")  # stands for another device: its values are lost, so moving back is refused
    with pytest.raises(NotImplementedError, match="meta tensor"):
        network.place("cpu")
