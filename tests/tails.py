"""Tails of small backbones, and a problem to fine-tune them on."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import open_clip
import timm
import torch
from torch import Tensor, nn

from img2prompt_cache.heads.neural.tail_network import TailNetwork, pool
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.models.backbones.build import shorten_last
from img2prompt_cache.models.backbones.rewrites.batchnorm import fold_batchnorm
from img2prompt_cache.models.backbones.tail import Middle, Tail, TrainableTail, tail_of
from img2prompt_cache.numerics.metrics import unit
from trunks import trunk_values

SIZE, WIDTH = 64, 6
TOWER = {"image_size": SIZE, "layers": 3, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm vit": lambda: timm.create_model("test_vit", num_classes=0, img_size=SIZE),
    "timm resnet": lambda: timm.create_model("test_resnet", num_classes=0),
    "timm efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=0),
    "open_clip vit": lambda: open_clip.CLIP(embed_dim=32, vision_cfg=TOWER, text_cfg=TEXT).visual,
}


def make(kind: str) -> nn.Module:
    """A frozen, folded model with seeded weights, none of whose layers is an identity."""
    torch.manual_seed(0)
    model = MODELS[kind]().eval().requires_grad_(requires_grad=False)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape) if name.endswith("var") else torch.randn(tensor.shape)
            tensor.add_(noise, alpha=0.05)
    return fold_batchnorm(model, torch.zeros(1, 3, SIZE, SIZE))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def targets(count: int) -> np.ndarray:
    return unit(np.random.default_rng(1).normal(size=(count, WIDTH)))


def trainable_tail(model: nn.Module, k: int, blocks: int) -> TrainableTail:
    model = shorten_last(copy.deepcopy(model), images(1).shape)
    tail = tail_of(model, k)
    with torch.inference_mode():
        values, width = trunk_values(model, images(1), k), model(images(1)).shape[1]
    middle, last = Middle(tail.blocks[: k - blocks]), Tail(tail.blocks[k - blocks :], tail.head)
    return TrainableTail(middle, last, tuple(values.shape[1:]), width)


def probe_of(X: np.ndarray, y: np.ndarray) -> Ridge:
    return Ridge(alpha=10.0).fit(X, y)


Problem = tuple[TrainableTail, np.ndarray, np.ndarray, Ridge]
"""A tail, values at its cut, targets, and the probe fitted on them."""


def make_problem() -> Problem:
    model = make("timm vit")
    with torch.inference_mode():
        values = trunk_values(model, images(40), 2).clone().numpy()
    tail, y = trainable_tail(model, 2, 2), targets(40)
    return tail, values, y, probe_of(pool(TailNetwork(tail, WIDTH), values), y)
