"""Training the mlp head against the usual DataLoader loop: seconds an epoch, and what is reached.

    python benchmarks/mlp.py [CACHE] [--rows 20000] [--epochs 20] [--seeds 3]

With a cache, its joined features and grouped split; without, synthetic rows of 1,664 features. All sides
train the same layers with the head's settings for the same number of epochs and are scored after each: the
loop everybody writes (torch's own layers, `DataLoader(TensorDataset)`, Adam, an exponential moving average of
the weights), the head in float32 and in bfloat16, and the loop's networks of all seeds in one, by
`torch.func`. Fastest epoch of each seed, mean over seeds. Prints a Markdown table and writes
`results/mlp.json`, with a cache `mlp-NAME.json`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kernel import cached, synthetic
from system import save
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.neural.by_rows import settle
from img2prompt_cache.heads.neural.network import outputs, start_at
from img2prompt_cache.heads.neural.pairs import Pairs
from img2prompt_cache.heads.neural.schedules import Schedule
from img2prompt_cache.heads.neural.training import Training, dropped_share
from img2prompt_cache.numerics.metrics import mean_cosine, unit
from img2prompt_cache.numerics.standardise import mean_and_scale

Epochs = Iterator[list[np.ndarray]]
"""Predictions for the held-out rows after each epoch, one for each network."""


def few_rows(**settings: Any) -> Mlp:
    """Make the head with the settings for few rows, which all sides train with."""
    return settle(Mlp(**settings), 0)


def layers(head: Mlp, inputs: torch.Tensor, targets: torch.Tensor) -> nn.Sequential:
    """Write the head's network in torch's own layers."""
    (width,) = head.hidden
    network = nn.Sequential(
        nn.Dropout(dropped_share(head, len(inputs))),
        nn.Linear(inputs.shape[1], width),
        nn.ReLU(),
        nn.Dropout(dropped_share(head, len(inputs))),
        nn.Linear(width, targets.shape[1]),
    )
    start_at(network, targets.mean(0))
    return network


def groups(head: Mlp, named: Iterable[tuple[str, torch.Tensor]]) -> list[dict[str, Any]]:
    """Divide parameters as the head does: weights decay, biases do not."""
    named = list(named)
    return [
        {
            "params": [each for name, each in named if name.endswith("weight")],
            "weight_decay": head.weight_decay,
        },
        {"params": [each for name, each in named if name.endswith("bias")]},
    ]


def loop(head: Mlp, pairs: Pairs, new: np.ndarray, epochs: int, seed: int) -> Epochs:
    """Train as most people write it."""
    torch.manual_seed(seed)
    mean, scale = mean_and_scale(pairs.X)
    inputs, targets = torch.from_numpy((pairs.X - mean) / scale), torch.from_numpy(pairs.y)
    held = torch.from_numpy((new - mean) / scale)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=head.batch_size, shuffle=True)
    network = layers(head, inputs, targets)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(head.ema))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.Adam(groups(head, network.named_parameters()), lr=head.lr)
    for _ in range(epochs):
        network.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = mse_loss(network(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            average.update_parameters(network)
            total += loss.item() * len(x)
        yield [outputs(average.module, held).numpy()]


def ours(head: Mlp, pairs: Pairs, new: np.ndarray, epochs: int, seed: int) -> Epochs:
    """Train as the head does."""
    torch.manual_seed(seed)
    net = Training(head, pairs, Schedule(epochs, head.schedule, head.warmup))
    blank = np.zeros((len(new), pairs.y.shape[1]), np.float32)
    for _ in range(epochs):
        net.train()
        yield [net.evaluate(new, blank)[0]]


def together(head: Mlp, pairs: Pairs, new: np.ndarray, epochs: int, seeds: int) -> Epochs:
    """Train the networks of all seeds as one whose matrices have one more dimension."""
    torch.manual_seed(0)
    mean, scale = mean_and_scale(pairs.X)
    inputs, targets = torch.from_numpy((pairs.X - mean) / scale), torch.from_numpy(pairs.y)
    held = torch.from_numpy((new - mean) / scale)
    networks = [layers(head, inputs, targets) for _ in range(seeds)]
    weights, _ = stack_module_state(networks)
    base = networks[0].train()
    optimizer = torch.optim.Adam(groups(head, weights.items()), lr=head.lr, fused=True)
    average = {name: value.detach().clone() for name, value in weights.items()}

    def error(own: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        return mse_loss(functional_call(base, own, inputs[rows]), targets[rows])

    step = vmap(grad_and_value(error), randomness="different")
    batches = -(-len(inputs) // head.batch_size)
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(inputs)) for _ in range(seeds)])
        base.train()
        for rows in torch.tensor_split(orders, batches, dim=1):
            gradients, _ = step({name: value.detach() for name, value in weights.items()}, rows)
            for name, value in weights.items():
                value.grad = gradients[name]
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(average.values()), [w.detach() for w in weights.values()], 1 - head.ema
                )
        base.eval()
        with torch.inference_mode():
            yield [
                functional_call(base, {name: value[i] for name, value in average.items()}, held).numpy()
                for i in range(seeds)
            ]


def timed(epochs: Epochs, true: np.ndarray) -> tuple[float, list[float]]:
    """Seconds of the fastest epoch, and each network's best cosine after any."""
    seconds, scores = [], []
    started = time.perf_counter()
    for predictions in epochs:
        seconds.append(time.perf_counter() - started)
        scores.append([mean_cosine(unit(pred), true) for pred in predictions])
        started = time.perf_counter()
    return min(seconds), np.max(scores, axis=0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    X, y, _, new, true, _ = cached(options.cache) if options.cache else synthetic(options.rows)
    pairs, count, seeds = Pairs(X, y.astype(np.float32)), options.epochs, range(options.seeds)
    print(f"{len(X):,} rows, {X.shape[1]:,} features; {count} epochs; scored on {len(new):,} others\n")
    print("| | seconds an epoch | times | cosine, best epoch |\n|---|---|---|---|")
    sides: dict[str, Any] = {
        "DataLoader loop": lambda seed: loop(few_rows(), pairs, new, count, seed),
        "mlp, float32": lambda seed: ours(few_rows(precision="fp32"), pairs, new, count, seed),
        "mlp, bfloat16": lambda seed: ours(few_rows(precision="bf16"), pairs, new, count, seed),
    }
    runs: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in sides}
    for seed in seeds:  # sides in turn, so that what else the machine does falls on all alike
        for name, side in sides.items():
            runs[name].append(timed(side(seed), true))
    seconds, scores = timed(together(few_rows(), pairs, new, count, len(seeds)), true)
    name = f"{len(seeds)} seeds in one, float32, for each"
    runs[name] = [(seconds / len(seeds), scores)]
    figures = []
    for name, found in runs.items():
        epoch = float(np.mean([each for each, _ in found]))
        first = figures[0]["seconds"] if figures else epoch
        cosine = float(np.mean([score for _, each in found for score in each]))
        figures.append({"side": name, "seconds": epoch, "times": first / epoch, "cosine": cosine})
        print(f"| {name} | {epoch:.3f} | {first / epoch:.2f} | {cosine:.4f} |", flush=True)
    what = {"rows": len(X), "features": X.shape[1], "epochs": count, "seeds": len(seeds)}
    print(save(f"mlp-{options.cache.name}" if options.cache else "mlp", {**what, "sides": figures}))


if __name__ == "__main__":
    main()
