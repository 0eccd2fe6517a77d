"""Tails against whole models: the same features and gradients, checked against the trunk column."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import nn

from architectures import MODELS, make
from img2prompt_cache.cache.quantise import quantise, restore
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.architectures import chain_of
from img2prompt_cache.models.backbones.tail import load_tail, tail_of
from img2prompt_cache.models.backbones.taps import Tap
from img2prompt_cache.models.devices import Precision
from img2prompt_cache.numerics.metrics import cosine
from kit import Tiny
from trunks import column_of, trunk_values


@pytest.mark.parametrize("name", MODELS)
def test_tail_of_trunk_is_the_model_wherever_it_is_cut(name: str) -> None:
    model, images = make(name)
    with torch.inference_mode():
        whole = model(images)
        assert whole.std() > 0
        for k in range(1, MODELS[name][2] + 1):
            values, tail = trunk_values(model, images, k), tail_of(model, k)
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
        tail = tail_of(model, 2)
        stored = chain_of(model).read(images, {"k2"})["k2"]
        error = (tail(stored.float()) - whole).abs().max()
        assert 0 < error <= 1e-3 * whole.abs().max()
        codes, scale = quantise(stored.numpy())
        coded = tail(torch.from_numpy(restore(codes, scale)))
        assert torch.cosine_similarity(coded, whole).min() >= 0.999


@pytest.mark.parametrize("name", MODELS)
def test_trunk_and_tail_share_out_the_model_s_own_parameters(name: str) -> None:
    model, _ = make(name)
    chain, tail = chain_of(model), tail_of(model, 2)
    trunk = nn.ModuleList([chain.stem, *chain.blocks[:-2]])
    first, last = ({id(p) for p in part.parameters()} for part in (trunk, tail))
    assert not first & last
    assert first | last == {id(p) for p in model.parameters()}
    assert last


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_the_tail_are_those_of_the_whole_model(name: str) -> None:
    model, images = make(name)
    whole = copy.deepcopy(model).requires_grad_(requires_grad=True)
    whole(images).square().sum().backward()
    expected = {key: p.grad for key, p in tail_of(whole, 2).named_parameters()}
    tail = copy.deepcopy(tail_of(model, 2)).requires_grad_(requires_grad=True)
    tail(trunk_values(model, images, 2)).square().sum().backward()
    found = {key: p.grad for key, p in tail.named_parameters()}
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-3, atol=1e-5, msg=key)
    assert all(p.grad is None for p in model.parameters())
    # Nor is a tail that is not copied closed to gradients that pass through it.
    values = trunk_values(model, images, 2).clone().requires_grad_(requires_grad=True)
    tail_of(model, 2)(values).sum().backward()
    assert values.grad is not None
    assert values.grad.abs().sum() > 0


def test_what_cannot_be_cut_is_refused_with_what_can() -> None:
    with pytest.raises(
        UsageError, match=r"a ConvNeXt cannot be cut .* ViT .*ResNet and EfficientNet of timm"
    ):
        tail_of(timm.create_model("test_convnext", num_classes=0), 2)
    model, _ = make("resnet")
    for k in (0, 5, -1):
        with pytest.raises(UsageError, match=rf"before the last {k} blocks is not possible: it has 4"):
            tail_of(model, k)


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
    tail = tail_of(backbone.model, 2)
    dtype = next(tail.parameters()).dtype
    with torch.inference_mode():
        plain = tail(torch.from_numpy(found["k2"]).to(dtype)).float().numpy()
        coded = tail(torch.from_numpy(restore(*quantise(found["k2"]))).to(dtype)).float().numpy()
    np.testing.assert_allclose(plain, found[""], rtol=0, atol=1e-3 * np.abs(found[""]).max())
    assert cosine(coded, found[""]).min() >= 0.999


@pytest.mark.parametrize("which", ["cnn", "vit"])
@pytest.mark.parametrize(("k", "blocks"), [(1, None), (3, None), (3, 1), (3, 3)])
def test_middle_and_tail_go_on_to_the_features(tiny: Tiny, which: str, k: int, blocks: int | None) -> None:
    spec = getattr(tiny, which)
    backbone = load_backbone(spec)
    found = load_tail(column_of(spec, k, "bf16"), blocks)
    assert len(found.tail.blocks) == (blocks or k)
    assert found.width == backbone.dim
    images = torch.randn(2, 3, *backbone.geometry.crop, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        values = trunk_values(backbone.model, images, k)
        assert values.shape[1:] == found.shape
        torch.testing.assert_close(
            found.tail(found.middle(values)), backbone.model(images), rtol=1e-5, atol=1e-5
        )
    assert not any(p.requires_grad for part in (found.middle, found.tail) for p in part.parameters())


def test_depths_count_from_the_end(tiny: Tiny) -> None:
    found = load_tail(column_of(tiny.vit, 3))
    depths = found.depths()
    assert depths.keys() == {name for name, _ in found.tail.named_parameters()}
    for at, depth in enumerate((3, 2, 1)):
        assert {depths[name] for name in depths if name.startswith(f"blocks.{at}.")} == {depth}
    assert {depths[name] for name in depths if name.startswith("head.")} == {1}


def test_a_fresh_tail_is_a_copy_that_can_be_trained(tiny: Tiny) -> None:
    found = load_tail(column_of(tiny.vit, 1))
    fresh = found.fresh()
    assert all(p.requires_grad for p in fresh.parameters())
    with torch.no_grad():
        for p in fresh.parameters():
            p.zero_()
    assert any(p.abs().sum() > 0 for p in found.tail.parameters())


def test_columns_that_do_not_fit_are_refused(tiny: Tiny) -> None:
    column = column_of(tiny.cnn, 2)
    with pytest.raises(UsageError, match="before the last 2 blocks, so 3 cannot be trained"):
        load_tail(column, 3)
    for spec in (tiny.cnn, f"{tiny.cnn}#levels", f"{tiny.cnn}#k2-v3"):
        with pytest.raises(UsageError, match="is no trunk column"):
            load_tail(replace(column, spec=spec))
    with pytest.raises(Img2PromptError, match="which it never gives"):
        load_tail(replace(column, shape=(1 << 40, 8, 8)))
    other = {**column.fingerprint, "weights": "sha256:other"}
    with pytest.raises(Img2PromptError, match="weights was sha256:other, is now"):
        load_tail(replace(column, fingerprint=other))
    deeper = {**column.fingerprint, **Tap("k9").fingerprint}
    with pytest.raises(UsageError, match="not possible: it has 4"):
        load_tail(replace(column, spec=f"{tiny.cnn}#k9", fingerprint=deeper))
