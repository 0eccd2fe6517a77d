"""Fidelity: how close a backbone's features are to those of torch in float32, in another format or runtime.

A shorter format rounds the output of every layer, so the loss depends on the architecture and on its weights
and has to be measured. It is measured on drawn pictures, always the same, rather than on images of the
source: then all caches of a backbone choose the same precision, and a run of one can predict from another.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import cosine

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.backbones.compiled import Graph
    from img2prompt_cache.models.devices import Precision

REQUIRED = 0.999
"""Mean cosine on the drawn pictures that a format must reach to be chosen by ``"auto"``.

On real images the loss is close to that on the drawn ones; `benchmarks/precision.py` shows both.
"""

SAME = 0.99999
"""Cosine that another runtime must reach in float32, on each of the drawn pictures, for each output."""

MORE_LOSS = 1.5
"""How many times torch's loss in bfloat16 another runtime may have, where torch loses more than allowed."""

PICTURES = 16


def fidelity(backbone: Backbone, precision: Precision) -> NDArray[np.float64]:
    """Compare a backbone's features in another number format with those in float32.

    Parameters
    ----------
    backbone : Backbone
        In float32; not changed.
    precision : {"bf16", "fp16"}

    Returns
    -------
    numpy.ndarray, float64, shape (PICTURES,)
        Cosine between the features of the two formats, one for each picture; NaN where one is not finite.
    """
    short, pixels = in_format(backbone, precision), drawn(backbone)
    return cosine(short.encode(pixels), backbone.encode(pixels))


def in_format(backbone: Backbone, precision: Precision) -> Backbone:
    """Copy a backbone in float32, and let the copy compute in another number format."""
    short = replace(backbone, model=copy.deepcopy(backbone.model))
    short.compute_in(precision)
    return short


def drawn(backbone: Backbone) -> torch.Tensor:
    """Give the drawn pictures as a backbone takes them: uint8, shape (PICTURES, height, width, 3)."""
    import torch

    return torch.from_numpy(np.stack([backbone.geometry.apply(picture) for picture in _pictures()]))


def require_same(backbone: Backbone, graph: Graph) -> None:
    """Compare all outputs of a graph with those of its backbone, on the drawn pictures.

    Parameters
    ----------
    backbone : Backbone
        In float32, computing with torch.
    graph : Graph

    Raises
    ------
    Img2PromptError
        If one is not as close as `SAME` demands; or in bfloat16, on average, `REQUIRED`, or `MORE_LOSS` where
        torch falls short itself.
    """
    pixels = drawn(backbone)
    wanted, found = backbone.read(pixels, graph.names), graph.read(pixels, graph.names)
    for name in graph.names:
        cosines = cosine(found[name], wanted[name])
        value, least = (cosines.min(), SAME) if graph.precision == "fp32" else (cosines.mean(), REQUIRED)
        if graph.precision != "fp32" and falls_short(cosines):
            ours = in_format(backbone, graph.precision).read(pixels, {name})[name]
            least = min(least, 1 - MORE_LOSS * (1 - cosine(ours, wanted[name]).mean()))
        if not value >= least:
            raise Img2PromptError(
                f"{backbone.spec}: openvino in {graph.precision} does not compute what torch does: the "
                f"{name or 'feature'} has a cosine of only {value:.6f} to torch's, below {least:.6g}; "
                '`runtime="torch"` does without it'
            )


def falls_short(cosines: NDArray[np.float64]) -> bool:
    """Say whether cosines from `fidelity` are too low on average, or not numbers."""
    return not cosines.mean() >= REQUIRED


@cache
def _pictures() -> tuple[Image.Image, ...]:
    from img2prompt_cache.images.scenes.picture import render
    from img2prompt_cache.images.scenes.words import sample_scenes

    return tuple(render(scene) for scene in sample_scenes(PICTURES, 0))
