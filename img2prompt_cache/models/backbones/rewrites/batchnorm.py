"""Batch norm folded into the convolution before it: the same function, in fewer steps with less rounding."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn

from img2prompt_cache.models.backbones.rewrites.trace import follow

TOLERANCE = 1e-3


def fold_batchnorm(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold every batch norm whose input is the output of a convolution.

    The pairs are found by running the model, whatever code connects the two. The result is compared with the
    model on a random input and discarded if it is not the same function, for example where a convolution's
    output is used twice.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode, float32; not changed.
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
        pairs = follow(folded, example, _is_conv, _is_norm).source
        names = {module: name for name, module in folded.named_modules()}
        for taker, source in pairs.items():
            norm, conv = cast(nn.BatchNorm2d, taker), cast(nn.Conv2d, source)
            fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            conv.weight, conv.bias = fused.weight, fused.bias
            parent, _, leaf = names[norm].rpartition(".")
            setattr(folded.get_submodule(parent), leaf, _rest(norm))
        probe = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        want, got = model(probe), folded(probe)
        same = (want - got).abs().max() <= TOLERANCE * want.abs().max()
    return folded.requires_grad_(requires_grad=False) if same else model


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d)


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """The other steps of a batch norm: timm's includes its activation."""
    extras = (getattr(norm, name, None) for name in ("drop", "act"))
    return nn.Sequential(*(extra for extra in extras if isinstance(extra, nn.Module)))
