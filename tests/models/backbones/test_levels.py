"""Levels against plain torch on the libraries' own modules, of every kind of architecture."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from architectures import MODELS, make, timm_model
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.build import blocks_of_output, shape_of, shorten_last
from img2prompt_cache.models.backbones.levels import levels_of, mean_and_deviation
from img2prompt_cache.models.backbones.taps import Tap
from kit import Tiny

SMALL = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4), "window_size": 2}
MORE: dict[str, Callable[[], nn.Module]] = {
    "convnext": timm_model("test_convnext"),
    "swin": timm_model("swin_tiny_patch4_window7_224", img_size=64, **SMALL),
    "beit": timm_model("beit_base_patch16_224", img_size=64, embed_dim=48, depth=5, num_heads=2),
    "regnet": timm_model("regnetx_002"),
    "mobilenet": timm_model("mobilenetv3_small_050"),
}
STAGES = {
    "resnet": ("layer1", "layer2", "layer3", "layer4"),
    "bottleneck": ("layer1", "layer2", "layer3", "layer4"),
    "clip resnet": ("layer1", "layer2", "layer3", "layer4"),
    "efficientnet": ("blocks.1", "blocks.2", "blocks.3", "blocks.4"),
    "efficientnet lite": ("blocks.3", "blocks.4", "blocks.5", "blocks.6"),
    "mobilenet": ("blocks.2", "blocks.3", "blocks.4", "blocks.5"),
    "convnext": ("stages.0", "stages.1", "stages.2", "stages.3"),
    "swin": ("layers.0", "layers.1", "layers.2", "layers.3"),
    "regnet": ("s1", "s2", "s3", "s4"),
}
VITS = {  # the last block and those before it; the norm; what stands before the patches
    "vit": ("blocks", (5, 4, 3), 2, "norm", 1, True),
    "vit tiny": ("blocks", (11, 10, 8), 5, "norm", 1, True),
    "vit without class token": ("blocks", (7, 6, 5), 3, "fc_norm", 1, False),
    "deit distilled": ("blocks", (11, 10, 8), 5, "norm", 2, True),
    "beit": ("blocks", (4, 3, 2), 1, "fc_norm", 1, True),
    "clip": ("transformer.resblocks", (2, 1), 0, "ln_post", 1, True),
    "clip attention pool": ("transformer.resblocks", (2, 1), 0, "", 1, True),
    "clip timm": ("trunk.blocks", (5, 4, 3), 2, "trunk.norm", 1, True),
}


def prepared(kind: str) -> tuple[nn.Module, Tensor]:
    if kind in MODELS:
        return make(kind)
    torch.manual_seed(0)
    model = MORE[kind]().eval().requires_grad_(requires_grad=False)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape), alpha=0.02)
    return model, torch.randn(2, 3, 64, 64)


def seen(model: nn.Module, images: Tensor, names: list[str]) -> list[Tensor]:
    """What the named modules give while the model runs."""
    kept: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda m, i, out, name=name: kept.__setitem__(name, out.clone())
        )
        for name in names
    ]
    with torch.inference_mode():
        model(images)
    for hook in hooks:
        hook.remove()
    return [kept[name] for name in names]


def levels(model: nn.Module, images: Tensor) -> tuple[tuple[str, ...], list[Tensor]]:
    found = levels_of(model)
    with torch.inference_mode(), found.collect() as pooled:
        model(images)
    assert all(each is not None for each in pooled)
    return found.names, [each for each in pooled if each is not None]


@pytest.mark.parametrize("kind", STAGES)
def test_levels_of_stages_are_mean_and_maximum_then_mean_and_deviation(kind: str) -> None:
    model, images = prepared(kind)
    names = list(reversed(STAGES[kind]))
    maps = [x.permute(0, 3, 1, 2) if kind == "swin" else x for x in seen(model, images, names)]
    expected = [torch.cat([maps[0].mean((2, 3)), maps[0].flatten(2).max(2).values], 1)]
    for x in maps[1:]:
        expected.append(torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1))
    said, found = levels(model, images)
    assert said == (f"{names[0]} mean+max", *(f"{name} mean+std" for name in names[1:]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", VITS)
def test_levels_of_a_vit_are_normed_class_token_and_mean_then_mean_and_deviation(kind: str) -> None:
    model, images = prepared(kind)
    home, whole, half, norm, prefix, has_class = VITS[kind]
    outputs = seen(model, images, [f"{home}.{at}" for at in (*whole, half)])
    with torch.inference_mode():
        tokens = [model.get_submodule(norm)(x) if norm else x for x in outputs]
        expected = [
            torch.cat([x[:, 0], x[:, prefix:].mean(1)], 1) if has_class else x[:, prefix:].mean(1)
            for x in tokens[:-1]
        ]
        patches = tokens[-1][:, prefix:]
        expected.append(torch.cat([patches.mean(1), patches.std(1, correction=0)], 1))
    names, found = levels(model, images)
    torch.testing.assert_close(found, expected)
    what = "class+mean" if has_class else "mean"
    inside = home.removeprefix("trunk.")
    assert names == (*(f"{inside}.{at} {what}" for at in whole), f"{inside}.{half} mean+std")


def test_a_shortened_last_block_changes_neither_levels_nor_the_feature() -> None:
    model, images = make("vit")
    with torch.inference_mode():
        _, expected = levels(model, images)
        short = shorten_last(model, images.shape)
        alone = short(images)
        found = levels_of(short)
        with found.collect() as pooled:
            top = short(images)
    torch.testing.assert_close(pooled, expected)
    assert torch.equal(top, alone)


@pytest.mark.parametrize("which", ["cnn", "vit"])
def test_levels_are_the_same_beside_a_trunk_as_alone(which: str, tiny: Tiny) -> None:
    backbone = load_backbone(getattr(tiny, which))
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    alone = backbone.read(pixels, {"multi"})["multi"]
    both = backbone.read(pixels, {"multi", "k2", ""})
    torch.testing.assert_close(torch.from_numpy(both["multi"]), torch.from_numpy(alone), rtol=1e-5, atol=1e-5)
    assert set(both) == {"multi", "k2", ""}


def test_the_blocks_of_a_column_are_the_levels(tiny: Tiny) -> None:
    backbone = load_backbone(tiny.vit)
    blocks = blocks_of_output(backbone, Tap("multi"))
    assert [(block.name, block.width) for block in blocks] == [
        ("blocks.5 class+mean", 128),
        ("blocks.4 class+mean", 128),
        ("blocks.3 class+mean", 128),
        ("blocks.2 mean+std", 128),
    ]
    assert shape_of(backbone, Tap("multi")) == (512,)
    assert blocks_of_output(backbone, Tap("multi", views=2)) == ()
    assert blocks_of_output(backbone, Tap()) == ()


def test_threads_that_share_a_model_collect_their_own_levels() -> None:
    model, images = make("resnet")
    found = levels_of(model)
    expected, kept = {}, {}
    for number in range(4):
        with torch.inference_mode(), found.collect() as pooled:
            model(images + number)
        expected[number] = [each.clone() for each in pooled]
    start = threading.Barrier(4)

    def run(number: int) -> None:
        with torch.inference_mode(), found.collect() as pooled:
            start.wait()
            model(images + number)
        kept[number] = pooled

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(dict(sorted(kept.items())), expected)
    model(images)  # and nobody collects
    assert all(torch.equal(a, b) for a, b in zip(pooled, expected[3], strict=True))


def test_a_deviation_far_from_zero_keeps_its_digits() -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    far = mean_and_deviation(x + 4096)[:, 3:]
    torch.testing.assert_close(far, (x + 4096).double().std((2, 3), correction=0).float())
    assert mean_and_deviation(torch.full((1, 2, 1, 1), 7.0)).tolist() == [[7, 7, 0, 0]]


def test_an_architecture_without_known_levels_is_refused() -> None:
    with pytest.raises(UsageError, match="inner levels of a Sequential are; leave out `levels`"):
        levels_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    model, images = make("resnet")
    model.layer3[-1].register_forward_hook(lambda m, i, out: (out, out))  # as a version of timm might
    found = levels_of(model)
    with pytest.raises(UsageError, match="inner levels of a BasicBlock"), found.collect():
        model.layer3(model.layer2(model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(images)))))))


def test_levels_of_other_models_with_tokens_are_of_all_tokens() -> None:
    torch.manual_seed(0)
    model, images = (
        timm.create_model("mixer_s32_224", num_classes=0, img_size=64).eval(),
        torch.randn(2, 3, 64, 64),
    )
    outputs = seen(model, images, ["blocks.7", "blocks.6"])
    _, found = levels(model, images)
    torch.testing.assert_close(found[0], torch.cat([outputs[0].mean(1), outputs[0].max(1).values], 1))
    torch.testing.assert_close(found[1], torch.cat([outputs[1].mean(1), outputs[1].std(1, correction=0)], 1))
