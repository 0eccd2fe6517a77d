"""Trunk columns as runs record them."""

from __future__ import annotations

import numpy as np

from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.taps import Tap, shape_of
from img2prompt_cache.runs.run import Use


def column_of(spec: str, k: int, precision: str = "fp32") -> Use:
    """A trunk column as a run keeps it."""
    backbone, tap = load_backbone(spec), Tap(f"k{k}")
    shape = shape_of(backbone, tap)
    fingerprint = {**backbone.fingerprint, **tap.fingerprint, "precision": precision}
    return Use(f"{spec}{tap.suffix}", int(np.prod(shape)), fingerprint, "", shape)
