"""Levels against the libraries' own intermediate outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from architectures import make
from img2prompt_cache.models.backbones.architectures import chain_of


@pytest.mark.parametrize("name", ["resnet", "bottleneck", "efficientnet", "efficientnet lite"])
def test_levels_of_a_network_are_mean_and_max_of_its_last_stages(name: str) -> None:
    model, images = make(name)
    kept: list[Tensor] = []
    names = ("layer2", "layer3", "layer4") if hasattr(model, "layer4") else None
    stages = [getattr(model, n) for n in names] if names else list(model.blocks)[-3:]
    hooks = [stage.register_forward_hook(lambda m, i, out: kept.append(out.clone())) for stage in stages]
    with torch.inference_mode():
        model(images)
        for hook in hooks:
            hook.remove()
        expected = [pooled for x in kept for pooled in (x.mean((2, 3)), x.flatten(2).max(2).values)]
        found = chain_of(model).read(images, {"levels"})["levels"]
    torch.testing.assert_close(found, torch.cat(expected, 1))


@pytest.mark.parametrize("name", ["vit", "vit tiny", "vit without class token", "deit distilled"])
def test_levels_of_a_vit_are_its_normed_class_token_and_mean_patch(name: str) -> None:
    model, images = make(name)
    with torch.inference_mode():
        layers = model.get_intermediate_layers(images, n=4, norm=True, return_prefix_tokens=True)
        expected = []
        for patches, prefix in layers:
            expected += [prefix[:, 0]] * (model.cls_token is not None) + [patches.mean(1)]
        found = chain_of(model).read(images, {"levels"})["levels"]
    torch.testing.assert_close(found, torch.cat(expected, 1))


def test_levels_of_a_clip_are_its_normed_class_token_and_mean_patch() -> None:
    model, images = make("clip")
    with torch.inference_mode():
        seen = model.forward_intermediates(
            images, indices=3, normalize_intermediates=True, output_fmt="NLC", output_extra_tokens=True
        )
        found = chain_of(model).read(images, {"levels"})["levels"]
    pairs = zip(seen["image_intermediates_prefix"], seen["image_intermediates"], strict=True)
    expected = [part for prefix, patches in pairs for part in (prefix[:, 0], patches.mean(1))]
    torch.testing.assert_close(found, torch.cat(expected, 1))
