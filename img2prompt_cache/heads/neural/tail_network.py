"""The network of the finetune head: a backbone's last blocks, and an output layer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from img2prompt_cache.data.trunk_rows import batches
from img2prompt_cache.models.backbones.rewrites.depthwise import quicken
from img2prompt_cache.models.devices import choose_device, choose_precision
from img2prompt_cache.numerics.disk_array import to_disk
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.trunk_rows import TrunkRows
    from img2prompt_cache.heads.base import Features, Targets
    from img2prompt_cache.heads.ridge import Ridge
    from img2prompt_cache.models.backbones.tail import TrainableTail

    Inputs = Features | TrunkRows
    Weights = dict[str, Tensor]

ROWS = 64
"""Rows that go through the tail at a time where nothing is trained."""


class TailNetwork(nn.Module):
    """Frozen blocks, fine-tuned tail, output layer: from values at the cut to embeddings of any length.

    Parameters
    ----------
    tail : TrainableTail
    width : int
        Of the embeddings.
    dropout : float
        Share of the pooled features dropped in training.
    precision : str
        ``"auto"``, ``"fp32"`` or ``"bf16"``.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """

    def __init__(
        self,
        tail: TrainableTail,
        width: int,
        dropout: float = 0.0,
        *,
        precision: str = "fp32",
        device: str = "auto",
    ) -> None:
        super().__init__()
        self.middle, self.tail, self.dropout, self.precision = tail.middle, tail.fresh(), dropout, precision
        # Its first values are the probe's, so no random ones are drawn.
        self.output: nn.Linear = nn.utils.skip_init(nn.Linear, tail.width, width)  # type: ignore[no-untyped-call]
        quicken(self.tail)
        self.place(device).train(mode=False)

    def place(self, device: str) -> TailNetwork:
        """Move to a device, and multiply in what `precision` means there."""
        where = choose_device(device)
        self.bf16 = choose_precision(self.precision, where) == "bf16"
        # Networks of one tail share the frozen blocks, so another network may have moved these.
        frozen = next(self.middle.parameters(), self.output.weight)
        here = {frozen.device, self.device} == {torch.device(where)}
        return self if here else self.to(where)

    def train(self, mode: bool = True) -> TailNetwork:
        """Switch dropout of the pooled features; batch norm and the like stay as in prediction."""
        self.training = mode  # the children's own are left as they are
        return self

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
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
        found: Tensor = self.output(dropout(self.pool(values), self.dropout, self.training))
        return found

    def start(self, probe: Ridge) -> None:
        """Take a ridge solution on the pooled features as the output layer."""
        bias = probe.intercept_ - probe.mean_.astype(np.float64) @ probe.coef_
        with torch.no_grad():
            self.output.weight.copy_(torch.from_numpy(probe.coef_.T.copy()))
            self.output.bias.copy_(torch.from_numpy(bias))

    def weights(self) -> Weights:
        """Give the tensors that are trained, by name; they are the network's own, not copies."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def predict(network: TailNetwork, X: Inputs, weights: Weights | None = None) -> Targets:
    """Predict unit-norm embeddings, float32 (n, t); with other weights than its own, if given."""
    network.train(mode=False)
    parts = [np.empty((0, network.output.out_features), np.float32)]
    with torch.inference_mode():
        for (values,) in batches([X], np.arange(len(X)), ROWS):
            parts.append(
                torch.func.functional_call(network, weights or {}, to_device(network, values)).cpu().numpy()
            )
    with np.errstate(invalid="ignore"):  # the network may have diverged; the caller checks
        return unit(np.concatenate(parts))


def pool(network: TailNetwork, X: Inputs) -> Features:
    """Compute the pooled features of rows, float32 (n, p), into a temporary file."""
    with torch.inference_mode():
        return to_disk(
            (
                network.pool(to_device(network, values)).cpu().numpy()
                for (values,) in batches([X], np.arange(len(X)), ROWS)
            ),
            network.output.in_features,
        )


def load(network: TailNetwork, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Copy saved arrays into the tensors that are trained; names and shapes are as `weights` gives them."""
    with torch.no_grad():
        # Copied, not assigned: a convolution's weight keeps its layout, and so every sum its order.
        for name, value in network.weights().items():
            value.copy_(torch.tensor(tensors[name]))


def to_device(network: TailNetwork, values: NDArray[Any]) -> Tensor:
    """Give values as a float32 tensor on the network's device."""
    return torch.from_numpy(np.asarray(values, np.float32)).to(network.device)
