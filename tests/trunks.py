"""Trunk columns as runs record them, and their values."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.architectures import chain_of
from img2prompt_cache.models.backbones.build import shape_of
from img2prompt_cache.models.backbones.chain import channels_last
from img2prompt_cache.models.backbones.taps import Tap


def column_of(spec: str, k: int, precision: str = "fp32") -> UsedColumn:
    """A trunk column as a run keeps it."""
    backbone, tap = load_backbone(spec), Tap(f"k{k}")
    shape = shape_of(backbone, tap)
    fingerprint = {**backbone.fingerprint, **tap.fingerprint, "precision": precision}
    return UsedColumn(f"{spec}{tap.suffix}", int(np.prod(shape)), fingerprint, "", shape)


def trunk_values(model: nn.Module, images: Tensor, k: int) -> Tensor:
    """The values before the last k blocks of a model, in its own precision, channels last."""
    return channels_last(chain_of(model).before(k, images))
