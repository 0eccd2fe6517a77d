"""Floating-point operations of a backbone for one image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone


def operations(backbone: Backbone) -> int:
    """Count the floating-point operations of one image's forward pass: two for each multiply-add.

    Only those of convolutions, matrix products and attention, as torch counts them; the rest is small.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def packed(x: list[int], weight: list[int], *_: object, **__: object) -> int:
        return 2 * math.prod(x) * weight[0]

    pixels = torch.zeros(1, *backbone.geometry.crop, 3, dtype=torch.uint8)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a single step that torch cannot count
    try:
        step = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # of `packed_linear`, where torch has it
        with FlopCounterMode(display=False, custom_mapping={step: packed} if step else {}) as counter:
            backbone.encode(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())
