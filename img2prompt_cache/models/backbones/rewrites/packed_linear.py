"""Linear layers in bfloat16 on a CPU, with their weights stored in the order in which oneDNN multiplies them.

`torch.nn.functional.linear` reorders the weights in every call, and a GELU after it reads and writes all
values once more. oneDNN can do both in one step. torch has this step for its own compiler, under a name that
may change in any version, so it is tried on a small layer first, and not used where that fails.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

from img2prompt_cache.models.backbones.rewrites.trace import UNEXPECTED, follow

TOLERANCE = 0.1
"""Relative to the norm: far more than a difference by rounding, far less than by a missing step."""


class PackedLinear(nn.Module):
    """A linear layer and the GELU after it, if any, in one step.

    Parameters
    ----------
    linear : torch.nn.Linear
        In bfloat16; not kept.
    gelu : torch.nn.Module, optional
        torch's or timm's.
    """

    def __init__(self, linear: nn.Linear, gelu: nn.Module | None = None) -> None:
        super().__init__()
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()
        self._after = ("none", "") if gelu is None else ("gelu", getattr(gelu, "approximate", "none"))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: (…, p) to (…, t)."""
        kind, how = self._after
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, kind, [], how)
        return found


def pack_linears(model: nn.Module, example: Tensor) -> None:
    """Pack the linear layers of a model in bfloat16 on a CPU, in place; it can no longer be copied then.

    The model is run to find out which layers are called, rather than their weights read by the module that
    holds them, and which GELU takes the output of one. If the packed model does not compute the same as
    before, it is left as it was.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    example : torch.Tensor, bfloat16, shape (1, 3, height, width)
        Normalised image to run it on.
    """
    if not _can_pack():
        return
    with torch.inference_mode():
        seen = follow(model, example, _is_linear, _is_gelu)
        once = {module for module, calls in seen.calls.items() if calls == 1}
        after = {one: gelu for gelu, one in seen.source.items() if gelu in once}
        homes = {
            child: (parent, name)
            for parent in model.modules()
            for name, child in parent.named_children()
            if child in once
        }
        try:
            for linear in filter(_is_linear, once):
                setattr(*homes[linear], PackedLinear(cast(nn.Linear, linear), after.get(linear)))
                if linear in after:
                    setattr(*homes[after[linear]], nn.Identity())
            same = bool((model(example) - seen.output).norm() <= TOLERANCE * seen.output.norm())
        except UNEXPECTED:
            same = False
    if not same:
        for child, home in homes.items():
            setattr(*home, child)


def _is_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear


def _is_gelu(module: nn.Module) -> bool:
    return type(module).__name__ == "GELU"  # torch's or timm's


@cache
def _can_pack() -> bool:
    """Try it on a small layer."""
    with torch.random.fork_rng(devices=()), torch.inference_mode():
        layer, x = nn.Linear(32, 16).bfloat16(), torch.ones(2, 3, 32, dtype=torch.bfloat16)
        try:
            found, wanted = PackedLinear(layer, nn.GELU())(x), nn.functional.gelu(layer(x))
        except UNEXPECTED:
            return False
        return torch.allclose(found.float(), wanted.float(), atol=0.02)
