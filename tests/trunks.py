"""Trunk columns as runs record them."""

from __future__ import annotations

import numpy as np

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.taps import Tap, shape_of


def column_of(spec: str, k: int, precision: str = "fp32") -> UsedColumn:
    """A trunk column as a run keeps it."""
    backbone, tap = load_backbone(spec), Tap(f"k{k}")
    shape = shape_of(backbone, tap)
    fingerprint = {**backbone.fingerprint, **tap.fingerprint, "precision": precision}
    return UsedColumn(f"{spec}{tap.suffix}", int(np.prod(shape)), fingerprint, "", shape)
