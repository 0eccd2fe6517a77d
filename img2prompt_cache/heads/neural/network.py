"""Networks on features: their layers, where they start, what they predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from img2prompt_cache.heads import checks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Targets

ROWS = 8192
"""Rows predicted at a time."""
LAYERS = "layers."
"""What the names of a network's saved arrays begin with."""
LEVELS = 1 << 16
"""How many values a draw of `Dropout` has."""


class Dropout(nn.Dropout):
    """Dropout that takes no longer than the layer after it.

    On processors other than Intel's, torch draws the values one by one, a double for each: for inputs as wide
    as features this takes longer than multiplying them by the weights. Here each value takes 16 random bits,
    so the share that is dropped is the nearest multiple of 1/65,536, and the values that are kept are scaled
    up for exactly that share.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop values of x, of any shape, in training."""
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        if not (self.training and dropped) or x.device.type != "cpu":
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
        drawn = bits.view(torch.int16)[: x.numel()].view(x.shape)
        kept = torch.ge(drawn, dropped - LEVELS // 2, out=torch.empty_like(x))
        return (x * kept).mul_(LEVELS / (LEVELS - dropped))


class Residual(nn.Module):
    """Sum of two networks on the same p inputs: a deep one, and a linear one divided by √p.

    A step of Adam moves every weight by the same amount, and so the output of a linear layer by the sum of
    its p inputs. Undivided, the linear network would need a far smaller learning rate than the deep one.
    """

    def __init__(self, deep: nn.Module, straight: nn.Module) -> None:
        super().__init__()
        self.deep, self.straight = deep, straight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the outputs of both."""
        found: torch.Tensor = self.deep(x) + self.straight(x) / x.shape[1] ** 0.5
        return found


def make_network(
    p: int, hidden: Sequence[int], t: int, *, dropout: float = 0.0, norm: str = "none", residual: bool = False
) -> nn.Module:
    """Build the layers from p inputs to t outputs.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers: each is dropout, linear, the norm, ReLU. Then dropout, linear.
    dropout : float
    norm : str
        ``"batch"`` or ``"none"``.
    residual : bool
        Add a linear layer straight from the inputs to the outputs; the hidden layers learn the rest.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise((p, *hidden)):
        layers += [Dropout(dropout), nn.Linear(width_in, width_out)]
        layers += [nn.BatchNorm1d(width_out)] if norm == "batch" else []
        layers += [nn.ReLU()]
    deep = nn.Sequential(*layers, Dropout(dropout), nn.Linear((p, *hidden)[-1], t))
    if not (residual and hidden):
        return deep
    return Residual(deep, nn.Sequential(Dropout(dropout), nn.Linear(p, t, bias=False)))


def start_at(network: nn.Module, mean: torch.Tensor) -> None:
    """Make a network predict `mean` (t,) for every input, as the mean head does."""
    parts = [network.deep, network.straight] if isinstance(network, Residual) else [network]
    first, *others = (cast(nn.Linear, cast(nn.Sequential, part)[-1]) for part in parts)
    first.bias.data = mean.clone()
    for last in (first, *others):
        nn.init.zeros_(last.weight)


def measure_norms(network: nn.Module, inputs: torch.Tensor) -> None:
    """Compute the statistics of each batch norm on all rows, without dropout, as they are in prediction.

    The running averages of training would not fit. Dropout makes the inputs of a norm vary more (with half of
    the values dropped, twice as much), so values divided by that variance in prediction would be too small
    (Li et al., 2019, CVPR). And averaged weights are not the weights that the running averages were taken
    with (Wu & Johnson, 2021, arXiv:2105.07576).
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    if not norms:
        return
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain means, not running ones; training reads neither
        norm.train()
    with torch.no_grad():
        turns = -(-len(inputs) // ROWS)
        for turn in range(turns):  # each batch from all over the rows: neighbours may be alike
            network(inputs[turn::turns])


def outputs(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Compute the outputs (n, t) for standardised inputs (n, p) on the network's device, without dropout."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(part) for part in torch.split(inputs, ROWS)])


def predict(network: nn.Module, mean: Features, scale: Features, X: Features) -> Targets:
    """Predict embeddings (n, t) of any length from features (n, p), standardised by `mean`, `scale` (p,)."""
    device = next(network.parameters()).device
    parts = [
        outputs(network, torch.from_numpy((part - mean) / scale).to(device)).cpu().numpy()
        for part in np.array_split(X, -(-len(X) // ROWS) or 1)
    ]
    return np.concatenate(parts)


def arrays_of(network: nn.Module) -> dict[str, NDArray[Any]]:
    """Give the arrays that a network predicts with, by names that begin with ``layers.``."""
    return {f"{LAYERS}{key}": value.cpu().numpy() for key, value in _tensors(network).items()}


def restore(make: Callable[[int], nn.Module], arrays: Mapping[str, NDArray[Any]]) -> nn.Module:
    """Make a network of saved arrays.

    Parameters
    ----------
    make : callable
        Makes an untrained network from its number of outputs.
    arrays : mapping of str to numpy.ndarray
        As `arrays_of` gave them; others are left alone.

    Raises
    ------
    Img2PromptError
        If an array is missing, or does not fit the network.
    """
    with torch.device("meta"):  # the settings may come from a hostile file: nothing is allocated for them
        last = [key for key in make(1).state_dict() if key.endswith("bias")][-1]
        network = make(len(checks.saved_array(arrays, f"{LAYERS}{last}", None)))
    wanted = _tensors(network)
    found = {key: checks.saved_array(arrays, f"{LAYERS}{key}", *value.shape) for key, value in wanted.items()}
    tensors = {key: torch.tensor(value) for key, value in found.items()}
    network.load_state_dict(tensors, assign=True)
    return network


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    # A norm's count of batches, a number, is not used in prediction.
    return {key: value for key, value in network.state_dict().items() if value.ndim}
