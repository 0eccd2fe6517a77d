"""Small models of every architecture that can be cut, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import open_clip
import timm
import torch
from torch import Tensor, nn

from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.build import freeze
from img2prompt_cache.models.backbones.rewrites.batchnorm import fold_batchnorm
from img2prompt_cache.models.specs import parse_spec

TEXT = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
TOWER = {"image_size": 64, "layers": 3, "width": 64, "patch_size": 16, "head_width": 32}


def timm_model(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=0, **options)


def clip_tower(**tower: object) -> Callable[[], nn.Module]:
    return lambda: open_clip.CLIP(embed_dim=32, vision_cfg={**TOWER, **tower}, text_cfg=TEXT).visual


MODELS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "vit": (timm_model("test_vit", img_size=64), 64, 6),
    "vit tiny": (timm_model("vit_tiny_patch16_224", img_size=64), 64, 12),
    "vit without class token": (timm_model("test_vit2", img_size=64), 64, 8),
    "vit averaged": (timm_model("test_vit", img_size=64, global_pool="avg"), 64, 6),
    "vit attention pool": (timm_model("test_vit3", img_size=64), 64, 9),
    "deit distilled": (timm_model("deit_tiny_distilled_patch16_224", img_size=64), 64, 12),
    "resnet": (timm_model("resnet10t"), 64, 4),
    "bottleneck": (timm_model("test_resnet"), 64, 4),
    "efficientnet": (timm_model("test_efficientnet"), 64, 5),
    "efficientnet lite": (timm_model("tf_efficientnet_lite0"), 64, 16),
    "clip": (clip_tower(), 64, 3),
    "clip averaged": (clip_tower(pool_type="avg", final_ln_after_pool=True), 64, 3),
    "clip attention pool": (clip_tower(attentional_pool=True), 64, 3),
    "clip resnet": (clip_tower(layers=[1, 2, 1, 1]), 64, 5),
    "clip timm": (
        clip_tower(timm_model_name="test_vit", timm_pool="", timm_proj="linear", timm_model_pretrained=False),
        160,
        6,
    ),
}


def make(kind: str) -> tuple[nn.Module, Tensor]:
    """A frozen, folded model with seeded weights, none of whose layers is an identity; and images."""
    build, size, _ = MODELS[kind]
    torch.manual_seed(0)
    model = build().eval().requires_grad_(requires_grad=False)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape) if name.endswith("var") else torch.randn(tensor.shape)
            tensor.add_(noise, alpha=0.02)
    images = torch.randn(2, 3, size, size)
    return fold_batchnorm(model, images[:1]), images


def backbone_of(kind: str) -> Backbone:
    """The same model as a backbone in fp32."""
    size = MODELS[kind][1]
    geometry = Geometry("shortest", (size, size), (size, size))
    spec = parse_spec("timm:resnet50")
    mean, std = (0.5, 0.4, 0.45), (0.2, 0.21, 0.22)
    return freeze(spec, make(kind)[0], geometry, mean, std, architecture=kind, library="")
