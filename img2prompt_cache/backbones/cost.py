"""What a backbone costs: floating-point operations for one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from img2prompt_cache.backbones.base import Backbone


def operations(backbone: Backbone) -> int:
    """Count the floating-point operations of one image's forward pass: two for each multiply-add.

    Those of convolutions, matrix products and attention, as torch counts them; the rest is small.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    pixels = torch.zeros(1, *backbone.geometry.crop, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        backbone.encode(pixels)
    return int(counter.get_total_flops())
