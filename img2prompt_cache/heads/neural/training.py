"""A network in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.neural.losses import AT_FIRST, mixed, parse
from img2prompt_cache.heads.neural.network import measure_norms, outputs, predict, start_at
from img2prompt_cache.heads.neural.schedules import factor
from img2prompt_cache.models.devices import choose_precision
from img2prompt_cache.numerics.standardise import mean_and_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Targets
    from img2prompt_cache.heads.mlp import Mlp

OPTIMIZERS = ("adam", "adamw", "sgd")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Rows to train on.

    Attributes
    ----------
    X, y : numpy.ndarray, float32, shapes (n, p) and (n, t)
    views : numpy.ndarray, float16 or float32, shape (n, v, p), or None
        Features of augmented views of the same images.
    """

    X: Features
    y: Targets
    views: NDArray[np.floating[Any]] | None = None

    def take(self, rows: NDArray[Any]) -> Pairs:
        """Give some rows, by number or by a mask."""
        return Pairs(self.X[rows], self.y[rows], None if self.views is None else self.views[rows])


class Training:
    """One network in training, on the device there is; untrained, it predicts the mean target.

    The rows lie on the device as a whole and are permuted by index.

    Parameters
    ----------
    head : Mlp
        Gives the settings.
    pairs : Pairs
        With views, each epoch sees for every row one of them or the image itself, drawn alike.
    """

    def __init__(self, head: Mlp, pairs: Pairs) -> None:
        X, y = pairs.X, pairs.y
        self.mean, self.scale = mean_and_scale(X)
        device = torch.device("cuda" if torch.cuda.device_count() else "cpu")
        self._inputs = torch.from_numpy((X - self.mean) / self.scale).to(device)
        self._targets = torch.tensor(y, device=device)
        self._views = None if pairs.views is None else torch.from_numpy(pairs.views).to(device)
        self._head, self._device = head, device
        self._bf16 = choose_precision(head.precision, device.type) == "bf16"
        self._mix = parse(head.loss)
        if head.norm == "batch" and len(X) < 2:
            raise UsageError(f"{head.name} with norm=batch takes two rows to train on, not {len(X)}")
        self._trained = head.make_network(X.shape[1], y.shape[1])
        start_at(self._trained, self._targets.mean(dim=0).cpu())
        self._trained.to(device)
        self._sharpness = torch.full((), AT_FIRST, device=device, requires_grad=True)
        self._optimizer = self._make_optimizer()
        self._average = (
            AveragedModel(
                self._trained,
                multi_avg_fn=get_ema_multi_avg_fn(head.ema),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
            if head.ema
            else None
        )
        self._kept: dict[str, torch.Tensor] = {}

    @property
    def network(self) -> nn.Module:
        """The network to predict with: the average of the weights where one is kept."""
        network: nn.Module = self._average.module if self._average else self._trained
        return network

    def train(self, epoch: int, epochs: int, drops: Sequence[int] = ()) -> float:
        """Train on all rows once, in a new order; gives the mean loss.

        Parameters
        ----------
        epoch : int
            From 1.
        epochs, drops
            Of the schedule; see `schedules.factor`.
        """
        head = self._head
        self._trained.train()
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        # Sizes differ by one at most: no batch is left with a row or two, on which a norm would be noise.
        batches = torch.tensor_split(
            torch.randperm(len(self._inputs)).to(self._device), -(-len(self._inputs) // head.batch_size)
        )
        inputs = self._sampled()
        for step, rows in enumerate(batches):
            position = epoch - 1 + (step + 0.5) / len(batches)
            rate = head.lr * factor(position, epochs, schedule=head.schedule, warmup=head.warmup, drops=drops)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                pred = self._trained(inputs.index_select(0, rows))
            loss = mixed(self._mix, pred.float(), self._targets.index_select(0, rows), self._sharpness)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if head.clip:
                nn.utils.clip_grad_norm_(self._trained.parameters(), head.clip)
            self._optimizer.step()
            if self._average:
                self._average.update_parameters(self._trained)
            total += loss.detach() * len(rows)
        measure_norms(self.network, self._inputs)
        return float(total) / len(self._inputs)

    def loss(self) -> float:
        """Give the mean loss on the training rows as it is, without dropout."""
        return self._loss_of(outputs(self.network, self._inputs), self._targets)

    def watch(self, X: Features, y: Targets) -> tuple[Targets, float]:
        """Give predictions for other rows, of any length, and the mean loss on them."""
        pred = predict(self.network, self.mean, self.scale, X)
        return pred, self._loss_of(torch.from_numpy(pred), torch.from_numpy(y))

    def keep(self) -> None:
        """Remember the weights as they are."""
        self._kept = {key: value.clone() for key, value in self.network.state_dict().items()}

    def settle(self) -> None:
        """Go back to the weights that were kept, if any were, and off the device."""
        if self._kept:
            self.network.load_state_dict(self._kept)
        self.network.cpu()

    def _sampled(self) -> torch.Tensor:
        """Draw a view, or the image itself, for each row: standardised features (n, p)."""
        if self._views is None:
            return self._inputs
        n, count, _ = self._views.shape
        drawn = torch.randint(count + 1, (n,))
        rows = torch.nonzero(drawn < count)[:, 0]
        inputs = self._inputs.clone()
        mean, scale = (torch.from_numpy(values).to(self._device) for values in (self.mean, self.scale))
        inputs[rows] = (self._views[rows, drawn[rows]].float() - mean) / scale
        return inputs

    def _loss_of(self, pred: torch.Tensor, true: torch.Tensor) -> float:
        # In batches as in training: what a contrastive loss says depends on their size.
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
