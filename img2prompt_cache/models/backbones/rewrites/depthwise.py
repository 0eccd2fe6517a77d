"""Depthwise convolutions that train fast on a CPU.

oneDNN has a fast gradient for a depthwise kernel up to 3 wide. For a wider one the gradient takes ten times
as long as the convolution itself, in bfloat16 a hundred times: for a 5 × 5 kernel more than for the two
matrix products beside it. The gradient of a kernel consists of the gradients of its pieces, so here it is
computed in pieces up to 3 wide.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, pad
from torch.nn.grad import conv2d_input, conv2d_weight

# torch has no types for these.
# mypy: disable-error-code="untyped-decorator,no-untyped-call,override"

WIDEST = 3


class Depthwise(nn.Module):
    """A depthwise convolution of stride 1 whose kernel's gradient is computed in pieces on a processor.

    Parameters
    ----------
    layer : torch.nn.Conv2d
        Its parameters are shared.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias, self.padding = layer.weight, layer.bias, layer.padding

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: x (n, c, h, w)."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return conv2d(x, self.weight, self.bias, padding=self.padding, groups=len(self.weight))
        found: Tensor = _InPieces.apply(x, self.weight, self.bias, self.padding)
        return found


def quicken(model: nn.Module) -> None:
    """Put a `Depthwise` in the place of every wide depthwise convolution of a model; it computes the same.

    The names of the model's parameters and the parameters themselves stay.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    """
    for parent in [*model.modules()]:
        for name, layer in parent.named_children():
            if type(layer) is nn.Conv2d and _is_wide(layer):
                setattr(parent, name, Depthwise(layer))


def _is_wide(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == layer.in_channels == layer.out_channels
        and max(layer.kernel_size) > WIDEST
        and {*layer.stride, *layer.dilation} == {1}
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


class _InPieces(torch.autograd.Function):
    """``conv2d`` with as many groups as channels: x (n, c, h, w), kernel (c, 1, kh, kw), bias (c,)."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # where autocast is on
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.padding = padding
        return conv2d(x, kernel, bias, padding=padding, groups=len(kernel))

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        down, right = ctx.padding
        of_x = of_kernel = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = conv2d_input(x.shape, kernel, grad, padding=ctx.padding, groups=len(kernel))
        if ctx.needs_input_grad[1]:
            padded = pad(x, (right, right, down, down))
            of_kernel = torch.cat(
                [
                    torch.cat([_piece(padded, grad, kernel, top, left) for left in _starts(kernel, 3)], 3)
                    for top in _starts(kernel, 2)
                ],
                2,
            )
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_x, of_kernel, of_bias, None


def _starts(kernel: Tensor, side: int) -> range:
    return range(0, kernel.shape[side], WIDEST)


def _piece(padded: Tensor, grad: Tensor, kernel: Tensor, top: int, left: int) -> Tensor:
    """Compute the gradient of the piece of a kernel that begins at `top` and `left`."""
    shape = kernel[:, :, top : top + WIDEST, left : left + WIDEST].shape
    height, width = grad.shape[2] + shape[2] - 1, grad.shape[3] + shape[3] - 1
    seen = padded[:, :, top : top + height, left : left + width]
    found: Tensor = conv2d_weight(seen, shape, grad, groups=len(kernel))
    return found
