"""A network on features, in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.neural import by_rows
from img2prompt_cache.heads.neural.batches import SAMPLE, Order, TrainingRows
from img2prompt_cache.heads.neural.beside import mixes_of
from img2prompt_cache.heads.neural.epochs import Course, Sides, train
from img2prompt_cache.heads.neural.losses import AT_FIRST, mixed, parse
from img2prompt_cache.heads.neural.network import measure_norms, outputs, predict, start_at
from img2prompt_cache.heads.neural.schedules import Schedule
from img2prompt_cache.models.devices import choose_device, choose_precision
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.row_blocks import mean_of_rows
from img2prompt_cache.numerics.standardise import mean_and_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from img2prompt_cache.heads.base import Features, OnStep, Targets
    from img2prompt_cache.heads.neural.pairs import Pairs
    from img2prompt_cache.heads.neural.settings import NetworkSettings


LONGEST_AVERAGE = 1 / 8
"""Share of all steps that the average of the weights reaches back, at most."""


def averaging(head: NetworkSettings, n: int) -> float:
    """Compute the decay of the average of the weights: `head.ema`, or less where there are few steps.

    A decay d reaches back 1/(1 − d) steps. With few rows there are few steps in all: 0.99 reaches back 100 of
    the 300 steps of 100 epochs of 300 rows, so the average lags behind until the end. So it reaches back an
    eighth of the steps at most.

    Parameters
    ----------
    head : NetworkSettings
    n : int
        Number of rows to train on.
    """
    steps = -(-n // (head.batch_size * by_rows.parts(head))) * max(head.max_epochs, head.epochs or 0)
    return max(0.0, min(head.ema, 1 - 1 / max(1.0, LONGEST_AVERAGE * steps)))


def dropped_share(head: NetworkSettings, n: int) -> float:
    """Compute the share of inputs to drop: `head.dropout`; if absent 0.5, or less where there are many rows.

    For a linear map of standardised features, dropping a share d amounts to an L2 penalty of n·d/(1 − d)
    (Srivastava et al., 2014, JMLR 15, §9.1): it grows with the rows, though what the penalty is needed for,
    noise, averages out as they grow. So from 2,000 rows on, `by_rows.FEW`, d/(1 − d) is 2,000/n, which keeps
    the penalty as large as it is at 2,000 rows. With half of the inputs dropped, a network on many rows stays
    below ridge regression for no other reason.

    Parameters
    ----------
    head : NetworkSettings
    n : int
        Number of rows to train on.
    """
    return by_rows.FEW / (by_rows.FEW + max(n, by_rows.FEW)) if head.dropout is None else head.dropout


class Training:
    """One network in training on `head.device`; untrained, it predicts the mean target.

    Parameters
    ----------
    head : NetworkSettings
        Settled: see `by_rows.settle`.
    pairs : Pairs
        Where there are views, each epoch uses for every row one of its views or the image itself, all equally
        likely.
    schedule : Schedule
        Of the learning rate, in epochs.
    """

    def __init__(self, head: NetworkSettings, pairs: Pairs, schedule: Schedule) -> None:
        X, y = pairs.X, pairs.y
        self.mean, self.scale = mean_and_scale(X, pairs.widths)
        device = torch.device(choose_device(head.device))
        self._rows = TrainingRows(pairs, self.mean, self.scale, device)
        self._order = Order(len(X), head.batch_size, by_rows.parts(head))
        self._head, self._schedule, self._device = head, schedule, device
        self._bf16 = choose_precision(head.precision, device.type) == "bf16"
        self._mix = parse(head.loss)
        if head.norm == "batch" and len(X) < 2:
            raise UsageError(f'{head.name} with `norm="batch"` needs two rows to train on, not {len(X)}')
        self._trained = head.make_network(X.shape[1], y.shape[1], dropped_share(head, len(X)))
        few = len(X) <= SAMPLE
        mean = (
            self._rows.sample()[1].mean(dim=0).cpu() if few else torch.from_numpy(mean_of_rows(y)[0]).float()
        )
        start_at(self._trained, mean)
        self._trained.to(device)
        self._sharpness = torch.full((), AT_FIRST, device=device, requires_grad=True)
        self._optimizer = self._make_optimizer()
        self._average = (
            AveragedModel(
                self._trained,
                multi_avg_fn=get_ema_multi_avg_fn(averaging(head, len(X))),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
            if head.ema
            else None
        )
        self._kept: dict[str, torch.Tensor] = {}
        self._epochs = 0

    @property
    def network(self) -> nn.Module:
        """The network to predict with: the average of the weights where one is kept."""
        network: nn.Module = self._average.module if self._average else self._trained
        return network

    def train(self) -> float:
        """Train on all rows once, or on the next part of them, in a new order; gives the mean loss."""
        head = self._head
        self._trained.train()
        total, count = torch.zeros((), dtype=torch.float64, device=self._device), 0
        chunks = self._order.epoch()
        steps = sum(len(chunk.batches) for chunk in chunks)
        for step, (inputs, targets) in enumerate(self._rows.batches(chunks)):
            rate = head.lr * self._schedule.factor(self._epochs + (step + 0.5) / steps)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                pred = self._trained(inputs)
            loss = mixed(self._mix, pred.float(), targets, self._sharpness)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if head.clip:
                nn.utils.clip_grad_norm_(self._trained.parameters(), head.clip)
            self._optimizer.step()
            if self._average:
                self._average.update_parameters(self._trained)
            total += loss.detach() * len(inputs)
            count += len(inputs)
        self._epochs += 1
        measure_norms(self.network, self._rows.sample()[0])
        return float(total) / count

    def loss(self) -> float:
        """Give the mean loss on the training rows, of many a sample, now, without dropout."""
        inputs, targets = self._rows.sample()
        return self._loss_of(outputs(self.network, inputs), targets)

    def evaluate(self, X: Features, y: Targets) -> tuple[Targets, dict[str, float]]:
        """Give unit-norm predictions for other rows, and the mean loss on them, `val_loss`."""
        pred = predict(self.network, self.mean, self.scale, X)
        loss = self._loss_of(torch.from_numpy(pred), torch.from_numpy(y))
        with np.errstate(invalid="ignore"):  # the network may have diverged; the caller checks
            return unit(pred), {"val_loss": loss}

    def keep(self) -> None:
        """Remember the weights as they are."""
        self._kept = {key: value.clone() for key, value in self.network.state_dict().items()}

    def settle(self) -> None:
        """Go back to the weights that were kept, if any were."""
        if self._kept:
            self.network.load_state_dict(self._kept)

    def _loss_of(self, pred: torch.Tensor, true: torch.Tensor) -> float:
        # In batches as in training: the value of a contrastive loss depends on their size.
        parts = zip(*(torch.split(values, self._head.batch_size) for values in (pred, true)), strict=True)
        sharpness = self._sharpness.detach().to(pred.device)
        total = sum(float(mixed(self._mix, p, t, sharpness)) * len(p) for p, t in parts)
        return total / len(pred)

    def _make_optimizer(self) -> optim.Optimizer:
        head, parameters = self._head, list(self._trained.parameters())
        free = [each for each in parameters if each.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": [each for each in parameters if each.ndim > 1]},
            {"params": [*free, self._sharpness], "weight_decay": 0.0},
        ]
        if head.optimizer == "sgd":
            return optim.SGD(groups, head.lr, momentum=0.9, weight_decay=head.weight_decay, fused=True)
        kind = optim.Adam if head.optimizer == "adam" else optim.AdamW
        return kind(groups, head.lr, weight_decay=head.weight_decay, fused=True)


def train_networks(
    head: NetworkSettings, sides: Sequence[Sides[Pairs]], *, on_step: OnStep | None = None
) -> tuple[Course[Training], list[int]]:
    """Train a network for each pair of sides together.

    Parameters
    ----------
    head, sides, on_step
        As `epochs.train` has them.

    Returns
    -------
    course : Course
    drops : list of int
        With the schedule ``"plateau"``, the epochs after which the rate fell.
    """
    looks = head.schedule == "plateau" and head.drops is None
    schedule = Schedule(
        max(head.epochs or 0, head.max_epochs),
        head.schedule,
        head.warmup,
        [*(head.drops or ())],
        head.patience // 3 if looks else None,
    )
    course = train(
        head,
        lambda pairs: Training(head, pairs, schedule),
        sides,
        schedule=schedule,
        mixes=mixes_of(head),
        on_step=on_step,
    )
    # Drops after the best epoch made no difference to its weights.
    return course, [drop for drop in schedule.drops if drop < course.epochs]
