"""Networks of the mlp head: what they are, and one in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.heads.scaling import standardiser
from img2prompt_cache.metrics import unit

if TYPE_CHECKING:
    import torch

    from img2prompt_cache.heads.base import Features, Targets
    from img2prompt_cache.heads.mlp import Mlp

ROWS = 8192
"""Rows predicted at a time."""


class Training:
    """One network in training, on the device there is; untrained, it predicts the mean target.

    Parameters
    ----------
    head : Mlp
        Gives the settings.
    X, y : numpy.ndarray, float32, shapes (n, p) and (n, t)
    """

    def __init__(self, head: Mlp, X: Features, y: Targets) -> None:
        import torch

        self.mean, self.scale = standardiser(X)
        device = torch.device("cuda" if torch.cuda.device_count() else "cpu")
        self._inputs = torch.from_numpy((X - self.mean) / self.scale).to(device)
        self._targets = torch.tensor(y, device=device)
        self._head = head
        self.network = make_network(X.shape[1], head.hidden, y.shape[1], head.dropout)
        _start(self.network, self._targets.mean(dim=0).cpu())
        self.network.to(device)
        self._optimizer = _optimizer(head, self.network.parameters())
        self._kept: dict[str, torch.Tensor] = {}

    def train(self) -> float:
        """Train on all rows once, in a new order; gives the mean loss."""
        import torch

        self.network.train()
        total = torch.zeros((), dtype=torch.float64)
        for rows in torch.split(torch.randperm(len(self._inputs)), self._head.batch_size):
            loss = _loss(self._head.loss, self.network(self._inputs[rows]), self._targets[rows])
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += loss.detach().cpu() * len(rows)
        return float(total) / len(self._inputs)

    def loss(self) -> float:
        """Give the mean loss as it is, without dropout."""
        import torch

        self.network.eval()
        with torch.inference_mode():
            parts = zip(torch.split(self._inputs, ROWS), torch.split(self._targets, ROWS), strict=True)
            total = sum(float(_loss(self._head.loss, self.network(x), y)) * len(x) for x, y in parts)
        return total / len(self._inputs)

    def predict(self, X: Features) -> Targets:
        """Predict unit-norm embeddings: float32, shape (n, t)."""
        return predict(self.network, self.mean, self.scale, X)

    def keep(self) -> None:
        """Remember the weights as they are."""
        self._kept = {key: value.clone() for key, value in self.network.state_dict().items()}

    def settle(self) -> None:
        """Go back to the weights that were kept, if any were, and off the device."""
        if self._kept:
            self.network.load_state_dict(self._kept)
        self.network.cpu()


def predict(network: torch.nn.Module, mean: Features, scale: Features, X: Features) -> Targets:
    """Predict unit-norm embeddings (n, t) from features (n, p), standardised by `mean` and `scale` (p,)."""
    import torch

    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy((part - mean) / scale).to(device)).cpu().numpy()
            for part in np.array_split(X, -(-len(X) // ROWS) or 1)
        ]
    with np.errstate(invalid="ignore"):  # of a network that diverged; its callers look
        return unit(np.concatenate(parts))


def _optimizer(head: Mlp, parameters: Iterator[torch.nn.Parameter]) -> torch.optim.Optimizer:
    from torch import optim

    if head.optimizer == "sgd":
        return optim.SGD(parameters, head.lr, momentum=0.9, weight_decay=head.weight_decay)
    kind = optim.Adam if head.optimizer == "adam" else optim.AdamW
    return kind(parameters, head.lr, weight_decay=head.weight_decay)


def make_network(p: int, hidden: Sequence[int], t: int, dropout: float) -> torch.nn.Sequential:
    """Build the layers from p inputs to t outputs."""
    from torch import nn

    layers: list[nn.Module] = []
    for width_in, width_out in pairwise((p, *hidden)):
        layers += [nn.Dropout(dropout), nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear((p, *hidden)[-1], t))


def _start(network: torch.nn.Sequential, mean: torch.Tensor) -> None:
    """Make a network predict `mean` (t,) for every input: the floor."""
    from torch import nn

    last = network[-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    last.bias.data = mean


def _loss(name: str, pred: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    if name == "mse":
        return functional.mse_loss(pred, true)
    return 1.0 - functional.cosine_similarity(pred, true).mean()
