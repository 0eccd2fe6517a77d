"""The network of the finetune head, and one in training.

A linear probe first, then fine-tuning from it (LP-FT; Kumar et al., 2022, ICLR), with weights pulled back to
where they started (L2-SP; Li et al., 2018, ICML), steps relative to the size of a tensor (Adafactor; Shazeer
& Stern, 2018, ICML) and smaller the deeper it lies (Clark et al., 2020, ICLR), mix-up at the cut (Verma et
al., 2019, ICML), and weights between start and end (WiSE-FT; Wortsman et al., 2022, CVPR).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, dropout

from img2prompt_cache.data.trunk_rows import TrunkRows, batches
from img2prompt_cache.heads.neural.schedules import factor
from img2prompt_cache.models.backbones.rewrites.depthwise import quicken
from img2prompt_cache.models.devices import choose_device, has_bf16
from img2prompt_cache.numerics.disk_array import to_disk
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Targets
    from img2prompt_cache.heads.finetune import Finetune
    from img2prompt_cache.heads.ridge import Ridge
    from img2prompt_cache.models.backbones.tail import TrainableTail

    Inputs = Features | TrunkRows
    Weights = dict[str, Tensor]

ROWS = 64
"""Rows that go through the tail at a time where nothing is trained."""
LEAST = 1e-3
"""Tensors smaller than this in root mean square move as if they were of it: biases that start at zero."""


class Network(nn.Module):
    """Frozen blocks, tuned tail, output layer: values at the cut in, embeddings of any length out.

    Parameters
    ----------
    ending : TrainableTail
    width : int
        Of the embeddings.
    share : float
        Of the pooled features, dropped in training.
    precision : str
        ``"auto"``, ``"fp32"`` or ``"bf16"``.
    """

    def __init__(
        self, ending: TrainableTail, width: int, share: float = 0.0, precision: str = "fp32"
    ) -> None:
        super().__init__()
        self.middle, self.tail, self.share = ending.middle, ending.fresh(), share
        # Its first values are the probe's, so no random ones are drawn.
        self.output: nn.Linear = nn.utils.skip_init(nn.Linear, ending.width, width)  # type: ignore[no-untyped-call]
        device = choose_device()
        self.bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
        if device == "cpu":
            quicken(self.tail)
        self.to(device).train(mode=False)

    def train(self, mode: bool = True) -> Network:
        """Switch dropout of the pooled features; batch norm and the like stay as in prediction."""
        self.training = mode  # the children's own are left as they are
        return self

    @property
    def device(self) -> torch.device:
        """Where it is."""
        where: torch.device = self.output.weight.device
        return where

    def pool(self, values: Tensor) -> Tensor:
        """Give the pooled features, float32 (n, p), of values at the cut."""
        # Weights stay float32: a step of fine-tuning is smaller than what bfloat16 can tell apart.
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            with torch.no_grad():
                values = self.middle(values)
            pooled: Tensor = self.tail(values)
        return pooled.float()

    def forward(self, values: Tensor) -> Tensor:
        """Give embeddings, float32 (n, t), of values at the cut."""
        found: Tensor = self.output(dropout(self.pool(values), self.share, self.training))
        return found

    def start(self, probe: Ridge) -> None:
        """Take a ridge solution on the pooled features as the output layer."""
        bias = probe.intercept_ - probe.mean_.astype(np.float64) @ probe.coef_
        with torch.no_grad():
            self.output.weight.copy_(torch.from_numpy(probe.coef_.T.copy()))
            self.output.bias.copy_(torch.from_numpy(bias))

    def weights(self) -> Weights:
        """Give the tensors that are trained, by name; they are the network's own."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def predict(network: Network, X: Inputs, weights: Weights | None = None) -> Targets:
    """Predict unit-norm embeddings, float32 (n, t); with other weights than its own, if given."""
    network.train(mode=False)
    parts = [np.empty((0, network.output.out_features), np.float32)]
    with torch.inference_mode():
        for (values,) in batches([X], np.arange(len(X)), ROWS):
            parts.append(
                torch.func.functional_call(network, weights or {}, _on(network, values)).cpu().numpy()
            )
    with np.errstate(invalid="ignore"):  # of a network that diverged; its callers look
        return unit(np.concatenate(parts))


def pool(network: Network, X: Inputs) -> Features:
    """Compute the pooled features of rows, float32 (n, p), onto the disk."""
    with torch.inference_mode():
        return to_disk(
            (
                network.pool(_on(network, values)).cpu().numpy()
                for (values,) in batches([X], np.arange(len(X)), ROWS)
            ),
            network.output.in_features,
        )


class Tuning:
    """A network in training.

    Parameters
    ----------
    head : Finetune
        Gives the settings.
    ending : TrainableTail
    probe : Ridge
        Fitted on the pooled features of the rows: where training starts.
    X : numpy.ndarray or TrunkRows, shape (n, …)
        Values at the cut.
    y : numpy.ndarray, float32, shape (n, t)
    """

    def __init__(self, head: Finetune, ending: TrainableTail, probe: Ridge, X: Inputs, y: Targets) -> None:
        self._head, self._X, self._y = head, X, y
        self._random = np.random.default_rng(head.seed)
        epochs = max(head.max_epochs, head.epochs or 0)
        self._step, self._steps = 0, epochs * -(-len(X) // head.batch_size)
        self.network = Network(ending, y.shape[1], head.dropout, head.precision)
        self.network.start(probe)
        self._weights = self.network.weights()
        self._start = {name: value.detach().clone() for name, value in self._weights.items()}
        self._average = {name: value.clone() for name, value in self._start.items()}
        self._kept = self._average
        depths = {f"tail.{name}": depth for name, depth in ending.depths().items()}
        self._rates = {name: head.lr * head.layer_decay ** depths.get(name, 0) for name in self._weights}
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [value], "peak": self._rates[name] * max(_size(value), LEAST)}
                for name, value in self._weights.items()
            ],
            weight_decay=0.0,  # the pull is in its place
            fused=True,
        )

    def train(self) -> float:
        """Train on all rows once, in a new order, each as one of its views; gives the mean loss."""
        self.network.train()
        X, total = self._X, torch.zeros((), dtype=torch.float64)
        if self._head.views and isinstance(X, TrunkRows):
            X = X.with_views(self._random.integers(0, X.views + 1, len(X)))
        order = int(self._random.integers(2**32))
        for values, targets in batches([X, self._y], np.arange(len(X)), self._head.batch_size, order):
            x, y = _on(self.network, values), _on(self.network, targets)
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
        """Take a step: the optimizer's, then the pull towards the start; and average the weights."""
        head = self._head
        done = (self._step + 1) / (self._steps + 1)
        rate = factor(done, 1, schedule="cosine", warmup=head.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        nn.utils.clip_grad_norm_(self._weights.values(), head.clip)
        self._optimizer.step()
        self._step += 1
        # As timm warms up its average: the start counts for little after ten steps.
        keep = min(head.ema, (1 + self._step) / (10 + self._step))
        with torch.no_grad():
            for name, value in self._weights.items():
                value.lerp_(self._start[name], min(1.0, self._rates[name] * rate * head.pull))
            torch._foreach_lerp_([*self._average.values()], [*self._weights.values()], 1 - keep)

    def predict(self, X: Inputs, mix: float | None = None) -> Targets:
        """Predict with the averaged weights; with `mix` as `settle` would leave them."""
        return predict(self.network, X, self._average if mix is None else self._mixed(mix))

    def keep(self) -> None:
        """Remember the averaged weights as they are."""
        self._kept = {name: value.clone() for name, value in self._average.items()}

    def settle(self, mix: float) -> Network:
        """Give the network with weights between the start, 0, and those that were kept last, 1."""
        with torch.no_grad():
            for name, value in self._mixed(mix).items():
                self._weights[name].copy_(value)
        return self.network

    def _mixed(self, mix: float) -> Weights:
        return {name: torch.lerp(value, self._kept[name], mix) for name, value in self._start.items()}


def cosine_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean over rows of 1 − cosine; (n, t) each, of any length."""
    return 1 - cosine_similarity(found, wanted).mean()


def load(network: Network, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Put saved arrays into the tensors that are trained; names and shapes are those of `Network.weights`."""
    with torch.no_grad():
        # Copied, not assigned: a convolution's weight keeps its layout, and so every sum its order.
        for name, value in network.weights().items():
            value.copy_(torch.tensor(tensors[name]))


def _on(network: Network, values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32)).to(network.device)


def _size(value: Tensor) -> float:
    return float(value.detach().square().mean().sqrt())
