"""Fine-tuning of a tail: where it starts, its steps, averages and mixes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from img2prompt_cache.heads.finetune import Finetune
from img2prompt_cache.heads.neural.finetuning import Finetuning
from img2prompt_cache.heads.neural.tail_network import TailNetwork, pool, predict
from img2prompt_cache.numerics.metrics import mean_cosine
from tails import WIDTH, Problem, make_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


def tuning(problem: Problem, **settings: object) -> Finetuning:
    tail, values, y, probe = problem
    return Finetuning(
        Finetune(**{"batch_size": 8, "max_epochs": 4, "precision": "fp32", **settings}),
        tail,
        probe,
        values,
        y,
    )


def test_the_untrained_network_is_its_probe(problem: Problem) -> None:
    tail, values, _, probe = problem
    net = tuning(problem)
    expected = probe.predict(pool(TailNetwork(tail, WIDTH), values))
    np.testing.assert_allclose(net.predict(values), expected, atol=1e-5)
    np.testing.assert_allclose(net.predict(values, 0.0), expected, atol=1e-5)


def test_training_lowers_the_loss_and_leaves_the_pre_trained_tail_alone(
    problem: Problem,
) -> None:
    tail, values, y, _ = problem
    before = {name: value.clone() for name, value in tail.tail.state_dict().items()}
    net = tuning(problem, mixup=0.0, lr=1e-2, pull=0.0, ema=0.0)
    start = mean_cosine(net.predict(values), y)
    losses = [net.train() for _ in range(4)]
    assert losses[-1] < losses[0]
    assert mean_cosine(net.predict(values), y) > start
    assert all(torch.equal(value, before[name]) for name, value in tail.tail.state_dict().items())


def moved(net: Finetuning) -> dict[str, float]:
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


def test_training_in_bfloat16_keeps_float32_weights(problem: Problem) -> None:
    values = problem[1]
    net = tuning(problem, precision="bf16", lr=1e-2)
    net.train()
    assert {value.dtype for value in net.settle(1.0).weights().values()} == {torch.float32}
    assert np.isfinite(net.predict(values)).all()


def test_the_average_is_the_exponential_one_and_forgets_the_start_soon(problem: Problem) -> None:
    net = tuning(problem, ema=0.3, lr=1e-2, batch_size=40)
    wanted = {name: value.double() for name, value in net._start.items()}
    for step in range(1, 7):
        net.train()
        keep = min(0.3, (1 + step) / (10 + step))
        for name, value in net._weights.items():
            wanted[name] = keep * wanted[name] + (1 - keep) * value.detach().double()
    assert any(not torch.equal(value, net._start[name]) for name, value in net._average.items())
    for name, value in net._average.items():
        torch.testing.assert_close(value.double(), wanted[name], rtol=1e-5, atol=1e-6)
