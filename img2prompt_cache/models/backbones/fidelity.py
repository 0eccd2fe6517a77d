"""Fidelity: how close a backbone's features in a shorter number format are to those in float32.

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

from img2prompt_cache.numerics.metrics import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.devices import Precision

REQUIRED = 0.999
"""Mean cosine on the drawn pictures that a format must reach to be chosen by ``"auto"``.

On real images the loss is close to that on the drawn ones; `benchmarks/precision.py` shows both.
"""

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
    import torch

    short = replace(backbone, model=copy.deepcopy(backbone.model))
    short.compute_in(precision)
    pixels = torch.from_numpy(np.stack([backbone.geometry.apply(picture) for picture in _pictures()]))
    return cosine(short.encode(pixels), backbone.encode(pixels))


def falls_short(cosines: NDArray[np.float64]) -> bool:
    """Say whether cosines from `fidelity` are too low on average, or not numbers."""
    return not cosines.mean() >= REQUIRED


@cache
def _pictures() -> tuple[Image.Image, ...]:
    from img2prompt_cache.images.scenes.picture import render
    from img2prompt_cache.images.scenes.words import sample_scenes

    return tuple(render(scene) for scene in sample_scenes(PICTURES, 0))
