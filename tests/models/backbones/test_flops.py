from __future__ import annotations

import torch
from torch import nn

from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.flops import operations


def test_two_for_each_multiply_add_of_one_image(tiny):
    backbone = load_backbone(tiny.cnn)
    side = backbone.geometry.crop
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    made = Backbone(
        "timm:x", model.requires_grad_(requires_grad=False), 5, backbone.geometry, (0, 0, 0), (1, 1, 1)
    )
    with torch.inference_mode():
        assert operations(made) == 2 * (side[0] * side[1] * 3 * 4 * 9 + 4 * 5)
    assert operations(backbone) > 0
