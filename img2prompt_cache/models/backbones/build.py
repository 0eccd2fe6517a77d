"""A frozen `Backbone` from a model that a library built."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch

from img2prompt_cache.cache.manifest import Block
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones.architectures import chain_of
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.rewrites.batchnorm import fold_batchnorm
from img2prompt_cache.models.backbones.rewrites.class_token import can_shorten, shorten
from img2prompt_cache.models.backbones.rewrites.trace import UNEXPECTED
from img2prompt_cache.models.backbones.taps import MULTI, NAMES, Tap
from img2prompt_cache.models.fingerprints import weights_digest
from img2prompt_cache.models.specs import Spec


def freeze(
    spec: Spec,
    model: torch.nn.Module,
    geometry: Geometry,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    architecture: str,
    library: str,
    revision: str = "",
) -> Backbone:
    """Freeze a model, speed it up, and record what its features depend on.

    Parameters
    ----------
    spec : Spec
    model : torch.nn.Module
        In float32 on the CPU; maps normalised images (n, 3, height, width) to features (n, dim).
    geometry : Geometry
    mean, std : sequence of float
        Per channel.
    architecture, library : str
        Fields of the identity.
    revision : str, optional
        The commit of the hub that the weights are from.

    Raises
    ------
    Img2PromptError
        If the model does not compute one vector for each image.
    """
    model.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    example = torch.zeros(1, 3, *geometry.crop)
    with torch.inference_mode():
        features = model(example)
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise Img2PromptError(f"{spec} gives no pooled feature; choose a model with a pooling head")
    identity = {
        "library": library,
        "architecture": architecture,
        "activation": activation(model),
        "weights": weights_digest(model.state_dict()),
    }
    if revision:
        identity["revision"] = revision
    red, green, blue = map(float, mean)
    deviation = tuple(map(float, std))
    return Backbone(
        str(spec),
        shorten_last(fold_batchnorm(model, example), example.shape),
        int(features.shape[1]),
        geometry,
        (red, green, blue),
        (deviation[0], deviation[1], deviation[2]),
        identity,
    )


def activation(model: torch.nn.Module) -> str:
    """Name the activation modules of a model, sorted and joined: ``"GELU"``, ``"QuickGELU"``, ``"ReLU6"``."""
    kinds = {type(module).__name__ for module in model.modules()}
    return ",".join(sorted(kind for kind in kinds if re.search("LU|[Ss]wish|Mish", kind))) or "none"


def shorten_last(model: torch.nn.Module, shape: torch.Size) -> torch.nn.Module:
    """Shorten the last block of a ViT, in place, where its feature is the first token alone.

    Parameters
    ----------
    model : torch.nn.Module
    shape : torch.Size
        Of the input, for one image.

    Returns
    -------
    torch.nn.Module
        `model`.
    """
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    try:
        chain = chain_of(model)
        if not can_shorten(chain.blocks[-1]):
            return model
        with torch.inference_mode():
            x = chain.before(1, images)
    except (UsageError, *UNEXPECTED):  # the model computes all the same, only slower
        return model
    last = chain.blocks[-1]
    short = shorten(last, chain.head, x)
    for home in model.modules():
        if short is not last and isinstance(home, torch.nn.Sequential | torch.nn.ModuleList):
            for name, child in home.named_children():
                if child is last:
                    home[int(name)] = short
    return model


def blocks_of_output(backbone: Backbone, tap: Tap) -> tuple[Block, ...]:
    """Say what blocks a feature column consists of; () where it is one block like any other."""
    if tap.views:
        return ()
    if tap.name == NAMES:
        (width,) = shape_of(backbone, tap)
        return (Block(NAMES, width, standardise=False),)
    if tap.name != MULTI:
        return ()
    with torch.inference_mode(), backbone.levels.collect() as pooled:
        backbone.outputs(noise(backbone))  # also where OpenVINO computes, which tells no modules
    widths = [each.shape[1] for each in pooled if each is not None]
    return tuple(Block(name, width) for name, width in zip(backbone.levels.names, widths, strict=True))


def shape_of(backbone: Backbone, tap: Tap) -> tuple[int, ...]:
    """Find the shape of one row of a column by encoding an image.

    Raises
    ------
    UsageError
        If the backbone cannot give such values: its architecture cannot be cut into blocks, or has fewer of
        them, or the installed version of its library builds it otherwise.
    """
    shape = backbone.read(noise(backbone), {tap.name})[tap.name].shape[1:]
    return (tap.views, *shape) if tap.views else shape


def noise(backbone: Backbone) -> torch.Tensor:
    """Give an image of random pixels, always the same, at a backbone's input size: (1, h, w, 3), uint8."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, *backbone.geometry.crop, 3), np.uint8)
    return torch.from_numpy(pixels)
