"""Linear layers in bfloat16 on a processor, their weights laid out once as oneDNN multiplies them.

`torch.nn.functional.linear` brings the weights into that order in every call, and a GELU behind it reads and
writes everything once more. oneDNN does both in the product. torch has this for its own compiler, under a
name that it does not promise to keep, so it is tried first and left alone where it is not there.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

TOLERANCE = 0.1
"""Of the norm: far more than rounding otherwise makes, far less than a step left out."""


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


def pack_linears(model: nn.Module, example: Tensor) -> None:
    """Pack the linear layers of a model in bfloat16 on a processor, in place; then it cannot be copied.

    Which layers are run, rather than read by the module above them, and which GELU takes what one gives, is
    seen by running the model. If the packed model says something else than before, it is left as it was.

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
        linears, gelus, before = _follow(model, example)
        homes = {
            child: (parent, name)
            for parent in model.modules()
            for name, child in parent.named_children()
            if child in linears or child in gelus
        }
        for linear in linears:
            gelu = next((gelu for gelu, source in gelus.items() if source is linear), None)
            setattr(*homes[linear], PackedLinear(linear, gelu))
            if gelu is not None:
                setattr(*homes[gelu], nn.Identity())
        try:
            same = bool((model(example) - before).norm() <= TOLERANCE * before.norm())
        except (RuntimeError, NotImplementedError, AttributeError, TypeError):
            same = False
    if not same:
        for child, home in homes.items():
            setattr(*home, child)


def _follow(model: nn.Module, example: Tensor) -> tuple[list[nn.Linear], dict[nn.Module, nn.Linear], Tensor]:
    """Run a model: linear layers that run once, GELUs with the one they take, and what the model gives."""
    calls: dict[nn.Module, int] = {}
    made: dict[int, tuple[nn.Linear, Tensor]] = {}
    taken: dict[nn.Module, nn.Linear] = {}

    def after(module: nn.Module, _inputs: object, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Linear):
            made[id(output)] = (module, output)  # the tensor is kept, so its id stays its own

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            taken[module] = made[id(inputs[0])][0]

    hooks = []
    for module in model.modules():
        if type(module) is nn.Linear or type(module).__name__ == "GELU":  # torch's or timm's
            hooks.append(module.register_forward_hook(after))
            if type(module) is not nn.Linear:
                hooks.append(module.register_forward_pre_hook(before))
    try:
        found: Tensor = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    linears = [module for module, times in calls.items() if isinstance(module, nn.Linear) and times == 1]
    return linears, {gelu: one for gelu, one in taken.items() if calls[gelu] == 1 and one in linears}, found


@cache
def _can_pack() -> bool:
    """Try it on a small layer."""
    with torch.random.fork_rng(devices=()), torch.inference_mode():
        layer, x = nn.Linear(32, 16).bfloat16(), torch.ones(2, 3, 32, dtype=torch.bfloat16)
        try:
            found, wanted = PackedLinear(layer, nn.GELU())(x), nn.functional.gelu(layer(x))
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        return torch.allclose(found.float(), wanted.float(), atol=0.02)
