"""Batch norm folded into the convolution before it: the same function in fewer, better rounded steps."""

from __future__ import annotations

import copy

import torch
from torch import nn

TOLERANCE = 1e-3


def fold_batchnorm(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold every batch norm whose input is the output of a convolution.

    Which ones these are is seen by running the model, so it works for whatever code joins the two. The result
    is held against the model on a random input and dropped if it is not the same function, as where a
    convolution's output is used twice.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode, float32; left as it is.
    example : torch.Tensor, float32, shape (1, 3, height, width)
        Normalised image to run it on.

    Returns
    -------
    torch.nn.Module
        A folded copy, or `model` itself where nothing can be folded.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    folded = copy.deepcopy(model)
    with torch.no_grad():  # weights made in inference mode could not be trained on later
        pairs = _follow(folded, example)
        names = {module: name for name, module in folded.named_modules()}
        for norm, conv in pairs.items():
            fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            conv.weight, conv.bias = fused.weight, fused.bias
            parent, _, leaf = names[norm].rpartition(".")
            setattr(folded.get_submodule(parent), leaf, _rest(norm))
        probe = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        want, got = model(probe), folded(probe)
        same = (want - got).abs().max() <= TOLERANCE * want.abs().max()
    return folded.requires_grad_(requires_grad=False) if same else model


def _follow(model: nn.Module, example: torch.Tensor) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Run the model and see which convolution each batch norm takes its input from."""
    made: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def after(conv: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        made[id(output)] = (conv, output)  # type: ignore[assignment]  # the tensor is kept, so its id stays its own

    def before(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found = made.get(id(inputs[0]))
        if found is not None:
            pairs[norm] = found[0]  # type: ignore[index]

    hooks = [
        module.register_forward_hook(after)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(before)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return pairs


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What a batch norm did besides: timm's carries its activation."""
    extras = (getattr(norm, name, None) for name in ("drop", "act"))
    return nn.Sequential(*(extra for extra in extras if isinstance(extra, nn.Module)))
