"""From a model that a library built to a frozen `Backbone`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from img2prompt_cache.backbones.base import Backbone
from img2prompt_cache.backbones.fold import fold_batchnorm
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fingerprints import weights_digest
from img2prompt_cache.geometry import Geometry
from img2prompt_cache.specs import Spec


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
    """Freeze a model and note what its features depend on.

    Parameters
    ----------
    spec : Spec
    model : torch.nn.Module
        In fp32 on the processor; maps normalised images (n, 3, height, width) to features (n, dim).
    geometry : Geometry
    mean, std : sequence of float
        Per channel.
    architecture, library : str
        Fields of the identity.
    revision : str, optional
        The commit of the hub that the weights are of.

    Raises
    ------
    Img2PromptError
        If the model does not give one vector an image.
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
        fold_batchnorm(model, example),
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
