"""Networks trained epoch by epoch, together, and the number of epochs that was best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from img2prompt_cache.data.inner_holdouts import inner_holdouts
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads.neural.schedules import flat
from img2prompt_cache.heads.neural.training import Pairs, Training
from img2prompt_cache.numerics.metrics import mean_cosine, mse, unit

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Groups, OnStep
    from img2prompt_cache.heads.mlp import Mlp

    Sides = tuple[Pairs, Pairs | None]

FEW = 1000
"""With fewer rows than this, one hold-out tells little, and the epochs are chosen on folds."""


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a training.

    Attributes
    ----------
    nets : list of Training
        One for each pair of sides.
    epochs : int
        How many they were trained for.
    drops : list of int
        Epochs after which the learning rate fell, with the schedule ``"plateau"``.
    history : list of dict
        A record for each epoch, from 0; means over the networks.
    """

    nets: list[Training]
    epochs: int
    drops: list[int]
    history: list[dict[str, float]]


def train(
    head: Mlp, sides: Sequence[Sides], epochs: int, *, stop: bool, on_step: OnStep | None = None
) -> Course:
    """Train one network for each pair of sides, epoch by epoch together.

    Parameters
    ----------
    head : Mlp
        Gives the settings.
    sides : sequence of tuple
        Rows to train on, and those to watch, if any.
    epochs : int
        How many; with `stop`, at most.
    stop : bool
        Give the networks back as they were after the epoch that was best on the watched rows of all: epoch 0
        is the mean head they start as.
    on_step : callable, optional
        Called with each epoch and its score; what it raises ends the training.

    Raises
    ------
    Img2PromptError
        If a loss is not finite any more.
    """
    history: list[dict[str, float]] = []
    drops, best, score = list(head.drops or ()), 0, -np.inf
    watched = any(held is not None for _, held in sides)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(head.seed)
        nets = [Training(head, pairs) for pairs, _ in sides]
        for epoch in range(epochs + 1):
            span = max(epochs, head.max_epochs)
            losses = [net.train(epoch, span, drops) if epoch else net.loss() for net in nets]
            record = {"epoch": epoch, "train_loss": float(np.mean(losses)), **_watch(nets, sides)}
            if not np.isfinite(list(record.values())).all():
                raise Img2PromptError(
                    f"{head.name} diverged in epoch {epoch}; lower lr, which is {head.lr:g}"
                )
            history.append({**record, "seconds": time.perf_counter() - started})
            if on_step:
                on_step(epoch, record["val_cosine"])
            if watched and record["val_cosine"] > score:
                best, score = epoch, record["val_cosine"]
                if stop:
                    for net in nets:
                        net.keep()
            elif stop and epoch - best >= head.patience:
                break
            if (
                head.schedule == "plateau"
                and head.drops is None
                and flat(epoch, best, drops, head.patience // 3)
            ):
                drops.append(epoch)
    for net in nets:
        net.settle()
    # Once the rate has fallen for the last time before the best epoch, what came later has no say.
    settled = best if stop else epochs
    return Course(nets, settled, [drop for drop in drops if drop < settled], history)


def inner_sides(pairs: Pairs, groups: Groups, seed: int, name: str) -> list[Sides]:
    """Divide rows to choose the number of epochs on: a grouped tenth is held out; of few rows, folds in turn.

    Raises
    ------
    UsageError
        If all rows are one group.
    """
    turns = inner_holdouts(
        groups, seed, few=FEW, share=0.1, what=f"{name} chooses its epochs", instead=", or set --epochs"
    )
    return [(pairs.take(~held), pairs.take(held)) for held in turns]


def _watch(nets: Sequence[Training], sides: Sequence[Sides]) -> dict[str, float]:
    """Score networks on the rows held out from each, all together; nothing where none were."""
    seen = [
        (*net.watch(held.X, held.y), held.y)
        for net, (_, held) in zip(nets, sides, strict=True)
        if held is not None
    ]
    if not seen:
        return {}
    losses = [loss for _, loss, _ in seen]
    true = np.concatenate([true for _, _, true in seen])
    with np.errstate(invalid="ignore"):  # of a network that diverged; its callers look
        pred = unit(np.concatenate([pred for pred, _, _ in seen]))
    return {
        "val_loss": float(np.average(losses, weights=[len(true) for _, _, true in seen])),
        "val_cosine": mean_cosine(pred, true),
        "val_mse": mse(pred, true),
    }
