"""Linear layers in bfloat16 on a processor, their weights laid out once as oneDNN multiplies them.

`torch.nn.functional.linear` brings the weights into that order in every call, and a GELU behind it reads and
writes everything once more. oneDNN does both in the product. torch has this for its own compiler, under a
name that it does not promise to keep, so it is tried first and left alone where it is not there.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer, and the GELU behind it, if any, in one product.

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


def pack_linears(model: nn.Module) -> None:
    """Pack the linear layers of a model in bfloat16 on a processor, in place; without gradients from then on.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    """
    if not _can_pack():
        return
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for at, (name, child) in enumerate(children):
            if type(child) is not nn.Linear:  # the projection of nn.MultiheadAttention is read by that itself
                continue
            follower, after = children[at + 1] if at + 1 < len(children) else ("", None)
            fused = _runs_in_order(parent) and type(after).__name__ == "GELU"
            setattr(parent, name, PackedLinear(child, after if fused else None))
            if fused:
                setattr(parent, follower, nn.Identity())


def _runs_in_order(parent: nn.Module) -> bool:
    """Whether the first two children of a module run one after the other, and nothing else sees between."""
    return isinstance(parent, nn.Sequential) or type(parent).__qualname__ == "Mlp"


@cache
def _can_pack() -> bool:
    """Try it on a small layer."""
    layer = nn.Linear(32, 16).bfloat16().requires_grad_(requires_grad=False)
    x = torch.ones(2, 3, 32, dtype=torch.bfloat16)
    try:
        with torch.inference_mode():
            found, wanted = PackedLinear(layer, nn.GELU())(x), nn.functional.gelu(layer(x))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return torch.allclose(found.float(), wanted.float(), atol=0.02)
