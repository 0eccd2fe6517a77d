"""Levels against the libraries' own intermediate outputs; models that a library builds otherwise."""

from __future__ import annotations

import re
from typing import Any

import open_clip
import pytest
import timm
import torch
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from architectures import make
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.architectures import chain_of, checked_chain
from img2prompt_cache.models.backbones.build import shorten_last
from img2prompt_cache.models.backbones.rewrites.class_token import Readout


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


class RenamedViT(VisionTransformer):
    """A ViT as a version of timm would have it that calls its steps otherwise."""

    embed = VisionTransformer._pos_embed
    _pos_embed = None

    def forward_features(self, x: Tensor, **_: object) -> Tensor:
        return self.norm(self.blocks(self.norm_pre(self.embed(self.patch_embed(x)))))


class RenamedResNet(ResNet):
    """A ResNet as a version of timm would have it that calls its steps otherwise."""

    act1 = None

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.get_submodule("layer1")[0].act2(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class RenamedTower(open_clip.transformer.VisionTransformer):
    """An image tower as a version of open_clip would have it that gives its tokens otherwise."""

    def _pool(self, x: Tensor) -> Tensor:
        return super()._pool(x)[0]

    def forward(self, x: Tensor) -> Tensor:
        return self._pool(self.transformer(self._embeds(x))) @ self.proj


class DoubledViT(VisionTransformer):
    """A ViT with one more step, which no call shows."""

    def forward_features(self, x: Tensor, **_: object) -> Tensor:
        return 2 * super().forward_features(x)


@pytest.mark.parametrize(
    ("name", "kind", "library"),
    [
        ("vit", RenamedViT, timm),
        ("resnet", RenamedResNet, timm),
        ("clip", RenamedTower, open_clip),
        ("vit", DoubledViT, timm),
    ],
)
def test_a_model_that_its_library_builds_otherwise_computes_but_is_not_cut(
    name: str, kind: type, library: Any
) -> None:
    model, images = make(name)
    with torch.inference_mode():
        checked_chain(model, images)
        model.__class__ = kind
        whole = model(images)
        said = rf"a {kind.__name__} of {library.__name__} {re.escape(library.__version__)} cannot be cut"
        with pytest.raises(UsageError, match=said):
            checked_chain(model, images)
        torch.testing.assert_close(shorten_last(model, images[:1].shape)(images), whole)


def test_a_last_block_is_left_whole_where_the_steps_before_it_are_not_known() -> None:
    model, images = make("vit")
    model.__class__ = RenamedViT
    shorten_last(model, images[:1].shape)
    assert not any(isinstance(module, Readout) for module in model.modules())


def test_a_model_without_the_blocks_that_its_class_had_is_refused() -> None:
    model, images = make("vit")
    model.layers = model.blocks
    del model.blocks
    with pytest.raises(UsageError, match=r"a VisionTransformer of timm .* another version of timm"):
        chain_of(model)
    assert shorten_last(model, images[:1].shape) is model
