"""Linear layers in float32 on a CPU, multiplied by oneDNN.

torch multiplies float32 matrices with MKL, which reached half the speed of oneDNN on the processor where it
was measured (docs/measurements.md). The sums are the same, in another order. torch has the step for its own
compiler, under a name that may change in any version, so it is tried on a small layer first, and not used
where that fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from img2prompt_cache.models.backbones.rewrites.trace import UNEXPECTED


class OneDnnLinear(nn.Linear):
    """A linear layer that oneDNN multiplies; its weights and their names are those of `torch.nn.Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: (…, p) to (…, t); in torch's usual way where autocast chooses another number format."""
        if torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return found


def use_onednn(model: nn.Module) -> None:
    """Let oneDNN multiply the linear layers of a model in float32 on a CPU, in place, where torch can."""
    if _has_onednn():
        for module in model.modules():
            # Of a subclass, nobody knows what else it does.
            if type(module) is nn.Linear and _fits(module.weight):
                module.__class__ = OneDnnLinear


@contextmanager
def without_onednn(model: nn.Module) -> Iterator[None]:
    """Have torch multiply the linear layers of a model in its usual way, until the end of the block."""
    layers: list[nn.Module] = [each for each in model.modules() if type(each) is OneDnnLinear]
    for layer in layers:
        layer.__class__ = nn.Linear
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = OneDnnLinear


def _fits(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


@cache
def _has_onednn() -> bool:
    """Try it on a small layer."""
    with torch.random.fork_rng(devices=()), torch.inference_mode():
        layer, x = nn.Linear(32, 16), torch.ones(2, 3, 32)
        wanted = layer(x)
        layer.__class__ = OneDnnLinear
        try:
            found = layer(x)
        except UNEXPECTED:
            return False
        return torch.allclose(found, wanted, atol=1e-5)
