"""Trunk and tail against the whole model, levels against the libraries' own intermediate outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import timm
import torch
from torch import Tensor, nn

from img2prompt_cache.backbones import load_backbone
from img2prompt_cache.backbones.base import Precision
from img2prompt_cache.backbones.fold import fold_batchnorm
from img2prompt_cache.backbones.trunks import chain_of, split
from img2prompt_cache.errors import UsageError
from img2prompt_cache.metrics import cosine
from img2prompt_cache.quantise import quantise, restore

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


@pytest.mark.parametrize("name", MODELS)
def test_tail_of_trunk_is_the_model_wherever_it_is_cut(name: str) -> None:
    model, images = make(name)
    with torch.inference_mode():
        whole = model(images)
        assert whole.std() > 0
        for k in range(1, MODELS[name][2] + 1):
            trunk, tail = split(model, k)
            values = trunk(images)
            np.testing.assert_array_equal(tail(values), whole)
            kept = chain_of(model).read(images, {"", f"k{k}"})
            np.testing.assert_array_equal(kept[""], whole)
            assert kept[f"k{k}"].dtype == torch.float16
            np.testing.assert_array_equal(kept[f"k{k}"], values.half())
            # A trunk alone does not pay for the tail, and is the same.
            np.testing.assert_array_equal(chain_of(model).read(images, {f"k{k}"})[f"k{k}"], kept[f"k{k}"])


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_values_are_enough_for_the_tail(name: str) -> None:
    model, images = make(name)
    with torch.inference_mode():
        whole = model(images)
        _, tail = split(model, 2)
        stored = chain_of(model).read(images, {"k2"})["k2"]
        error = (tail(stored.float()) - whole).abs().max()
        assert 0 < error <= 1e-3 * whole.abs().max()
        codes, scale = quantise(stored.numpy())
        coded = tail(torch.from_numpy(restore(codes, scale)))
        assert torch.cosine_similarity(coded, whole).min() >= 0.999


@pytest.mark.parametrize("name", MODELS)
def test_both_halves_hold_the_model_s_own_parameters_and_nothing_twice(name: str) -> None:
    model, _ = make(name)
    trunk, tail = split(model, 2)
    first, last = ({id(p) for p in part.parameters()} for part in (trunk, tail))
    assert not first & last
    assert first | last == {id(p) for p in model.parameters()}
    assert last


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_the_tail_are_those_of_the_whole_model(name: str) -> None:
    model, images = make(name)
    whole = copy.deepcopy(model).requires_grad_(requires_grad=True)
    whole(images).square().sum().backward()
    expected = {key: p.grad for key, p in split(whole, 2)[1].named_parameters()}
    trunk, tail = split(model, 2)
    tail = copy.deepcopy(tail).requires_grad_(requires_grad=True)
    tail(trunk(images)).square().sum().backward()
    found = {key: p.grad for key, p in tail.named_parameters()}
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-3, atol=1e-5, msg=key)
    assert all(p.grad is None for p in model.parameters())
    # Nor is a tail that is not copied closed to gradients that pass through it.
    values = trunk(images).clone().requires_grad_(requires_grad=True)
    split(model, 2)[1](values).sum().backward()
    assert values.grad is not None
    assert values.grad.abs().sum() > 0


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


def test_what_cannot_be_cut_is_refused_with_what_can() -> None:
    with pytest.raises(
        UsageError, match=r"a ConvNeXt cannot be cut .* ViT .*ResNet and EfficientNet of timm"
    ):
        split(timm.create_model("test_convnext", num_classes=0), 2)
    model, _ = make("resnet")
    for k in (0, 5, -1):
        with pytest.raises(UsageError, match=rf"before the last {k} blocks is not possible: it has 4"):
            split(model, k)


@pytest.mark.weights
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("spec", ["packaged:efficientnet-lite0", "packaged:vit-small-saliency"])
def test_real_weights_survive_storage_in_16_and_in_8_bits(spec: str, precision: Precision) -> None:
    backbone = load_backbone(spec, precision=precision)
    noise = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(noise, backbone.geometry.crop, mode="bicubic").clamp(0, 1)
    pixels = (smooth.permute(0, 2, 3, 1) * 255).to(torch.uint8).contiguous()
    found = backbone.read(pixels, {"", "k2"})
    np.testing.assert_array_equal(found[""], backbone.encode(pixels))
    _, tail = split(backbone.model, 2)
    dtype = next(tail.parameters()).dtype
    with torch.inference_mode():
        plain = tail(torch.from_numpy(found["k2"]).to(dtype)).float().numpy()
        coded = tail(torch.from_numpy(restore(*quantise(found["k2"]))).to(dtype)).float().numpy()
    np.testing.assert_allclose(plain, found[""], rtol=0, atol=1e-3 * np.abs(found[""]).max())
    assert cosine(coded, found[""]).min() >= 0.999
