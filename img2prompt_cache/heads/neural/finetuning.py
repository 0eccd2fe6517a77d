"""Fine-tuning of a backbone's last blocks.

A linear probe first, then fine-tuning from it (LP-FT; Kumar et al., 2022, ICLR), with a penalty that keeps
the weights close to where they started (L2-SP; Li et al., 2018, ICML), steps relative to the size of a tensor
(Adafactor; Shazeer & Stern, 2018, ICML) and smaller the deeper it lies (Clark et al., 2020, ICLR), mix-up at
the cut (Verma et al., 2019, ICML), and weights between start and end (WiSE-FT; Wortsman et al., 2022, CVPR).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.optim.swa_utils import get_ema_multi_avg_fn

from img2prompt_cache.data.trunk_rows import TrunkRows, batches
from img2prompt_cache.heads.neural.epochs import Course, Rows, Sides, evaluate, train
from img2prompt_cache.heads.neural.schedules import factor
from img2prompt_cache.heads.neural.tail_network import TailNetwork, predict, to_device

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import OnStep, Targets
    from img2prompt_cache.heads.neural.settings import FinetuneSettings
    from img2prompt_cache.heads.neural.tail_network import Inputs, Weights
    from img2prompt_cache.heads.ridge import Ridge
    from img2prompt_cache.models.backbones.tail import TrainableTail

LEAST = 1e-3
"""Tensors smaller than this in root mean square move as if they were of it: biases that start at zero."""
MIXES = (0.25, 0.5, 0.75, 1.0)
"""Weights of the fine-tuned tensors that are tried once the epochs are chosen."""


class Finetuning:
    """A tail and its output layer in training.

    Parameters
    ----------
    head : FinetuneSettings
    tail : TrainableTail
    probe : Ridge
        Fitted on the pooled features of the rows: where training starts.
    X : numpy.ndarray or TrunkRows, shape (n, …)
        Values at the cut.
    y : numpy.ndarray, float32, shape (n, t)
    probe_loss : float
        Mean loss of the probe on the rows; NaN where nobody will ask for it.
    """

    def __init__(
        self,
        head: FinetuneSettings,
        tail: TrainableTail,
        probe: Ridge,
        X: Inputs,
        y: Targets,
        probe_loss: float = math.nan,
    ) -> None:
        self._head, self._X, self._y = head, X, y
        self._probe_loss = probe_loss
        self._random = np.random.default_rng(head.seed)
        epochs = max(head.max_epochs, head.epochs or 0)
        self._step, self._steps = 0, epochs * -(-len(X) // head.batch_size)
        self.network = TailNetwork(
            tail, y.shape[1], head.dropout, precision=head.precision, device=head.device
        )
        self.network.start(probe)
        self._weights = self.network.weights()
        self._start = {name: value.detach().clone() for name, value in self._weights.items()}
        self._average = {name: value.clone() for name, value in self._start.items()}
        self._kept = self._average
        depths = {f"tail.{name}": depth for name, depth in tail.depths().items()}
        self._rates = {name: head.lr * head.layer_decay ** depths.get(name, 0) for name in self._weights}
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [value], "peak": self._rates[name] * max(_size(value), LEAST)}
                for name, value in self._weights.items()
            ],
            weight_decay=0.0,  # the penalty towards the start is in its place
            fused=True,
        )

    def loss(self) -> float:
        """Give the mean loss on the training rows before the first epoch: the probe's."""
        return self._probe_loss

    def train(self) -> float:
        """Train on all rows once, in a new order, each as one of its views; gives the mean loss."""
        self.network.train()
        X, total = self._X, torch.zeros((), dtype=torch.float64)
        if self._head.views and isinstance(X, TrunkRows):
            X = X.with_views(self._random.integers(0, X.views + 1, len(X)))
        order = int(self._random.integers(2**32))
        for values, targets in batches([X, self._y], np.arange(len(X)), self._head.batch_size, order):
            x, y = to_device(self.network, values), to_device(self.network, targets)
            if self._head.mixup:
                # The order is random, so each row meets a random other.
                weight = float(self._random.beta(self._head.mixup, self._head.mixup))
                x, y = torch.lerp(x.flip(0), x, weight), torch.lerp(y.flip(0), y, weight)
            loss = cosine_loss(self.network(x), y)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._move()
            total += loss.detach().cpu() * len(x)
        return float(total) / len(X)

    def _move(self) -> None:
        """Take a step: the optimizer's, then one towards the start; and average the weights."""
        head = self._head
        done = (self._step + 1) / (self._steps + 1)
        rate = factor(done, 1, schedule="cosine", warmup=head.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        nn.utils.clip_grad_norm_(self._weights.values(), head.clip)
        self._optimizer.step()
        self._step += 1
        with torch.no_grad():
            for name, value in self._weights.items():
                value.lerp_(self._start[name], min(1.0, self._rates[name] * rate * head.pull))
        # As timm warms up its average: the start counts for little after ten steps.
        keep = min(head.ema, (1 + self._step) / (10 + self._step))
        average = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
        average([*self._average.values()], [*self._weights.values()], self._step)

    def predict(self, X: Inputs, mix: float | None = None) -> Targets:
        """Predict with the averaged weights; with `mix` as `settle` would leave them."""
        return predict(self.network, X, self._average if mix is None else self._mixed(mix))

    def evaluate(self, X: Inputs, y: Targets, mix: float | None = None) -> tuple[Targets, dict[str, float]]:
        """Give predictions for other rows, as `predict`; 1 − `val_cosine` is their loss, so none is added."""
        return self.predict(X, mix), {}

    def keep(self) -> None:
        """Remember the averaged weights as they are."""
        self._kept = {name: value.clone() for name, value in self._average.items()}

    def settle(self, mix: float) -> TailNetwork:
        """Give the network with weights between the start, 0, and those that were kept last, 1.

        Where none were kept, those are the averaged weights as they are.
        """
        with torch.no_grad():
            for name, value in self._mixed(mix).items():
                self._weights[name].copy_(value)
        return self.network

    def _mixed(self, mix: float) -> Weights:
        return {name: torch.lerp(value, self._kept[name], mix) for name, value in self._start.items()}


@dataclass(frozen=True, slots=True)
class Tuned:
    """What became of a fine-tuning.

    Attributes
    ----------
    nets : list of Finetuning
        One for each pair of sides.
    epochs : int
        How many they were trained for, or the best epoch; 0 where none was better than the probe.
    mix : float
        Where the best weights lie between the probe, 0, and those of that epoch, 1.
    score : float
        Mean cosine of these weights on the held-out rows; NaN where there are none.
    history : list of dict
        A record for each epoch, from 0, and one for each mix that was tried.
    """

    nets: list[Finetuning]
    epochs: int
    mix: float
    score: float
    history: list[dict[str, float]]


def fine_tune(
    head: FinetuneSettings,
    start: Callable[[Rows], Finetuning],
    sides: Sequence[Sides[Rows]],
    *,
    on_step: OnStep | None = None,
) -> Tuned:
    """Fine-tune a network for each pair of sides together; choose the epochs and the mix that are not given.

    Parameters
    ----------
    head, start, sides, on_step
        As `epochs.train` has them.
    """
    # The probe is compared with the mixes in the end, so the best epoch is one of training.
    course = train(head, start, sides, untrained_competes=False, on_step=on_step)
    if head.epochs is not None:
        mix = 1.0 if head.mix is None else head.mix
        score = _evaluate_mix(course, sides, mix).get("val_cosine", math.nan)
        return Tuned(course.nets, course.epochs, mix, score, course.history)
    probe = course.history[0]["val_cosine"]
    mixes = MIXES if head.mix is None else (head.mix,)
    tried = [{"epoch": course.epochs, "mix": mix, **_evaluate_mix(course, sides, mix)} for mix in mixes]
    history = [*course.history, *tried]
    best = max(tried, key=lambda record: record["val_cosine"])
    if best["val_cosine"] <= probe:
        return Tuned(course.nets, 0, 0.0, probe, history)
    return Tuned(course.nets, course.epochs, best["mix"], best["val_cosine"], history)


def _evaluate_mix(course: Course[Finetuning], sides: Sequence[Sides[Any]], mix: float) -> dict[str, float]:
    """Score weights between the probe and the last ones kept on the held-out rows."""
    if mix == 1:
        last = course.history[course.epochs]  # of those weights as they are
        return {key: last[key] for key in ("val_cosine", "val_mse") if key in last}
    return evaluate([partial(net.evaluate, mix=mix) for net in course.nets], sides)


def cosine_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean over rows of 1 − cosine; (n, t) each, of any length."""
    return 1 - cosine_similarity(found, wanted).mean()


def _size(value: Tensor) -> float:
    return float(value.detach().square().mean().sqrt())
