"""Packed linear layers against the ones they are made of."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn

from architectures import make
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.flops import operations
from img2prompt_cache.models.backbones.rewrites import packed_linear
from img2prompt_cache.models.backbones.rewrites.packed_linear import PackedLinear, pack_linears
from img2prompt_cache.numerics.metrics import cosine

needs_packing = pytest.mark.skipif(not packed_linear._can_pack(), reason="oneDNN has no such step here")


def packed(model: nn.Module) -> int:
    return sum(isinstance(module, PackedLinear) for module in model.modules())


@needs_packing
@pytest.mark.parametrize("kind", ["vit", "clip", "vit averaged", "deit distilled"])
def test_features_are_as_close_to_those_of_float32_as_unpacked_ones(kind: str) -> None:
    model, images = make(kind)
    short = copy.deepcopy(model).bfloat16()
    with torch.inference_mode():
        exact, plain = model(images), short(images.bfloat16())
        pack_linears(short, images[:1].bfloat16())
        assert packed(short)
        found = short(images.bfloat16())
    away = (found.float() - exact).norm() / exact.norm()
    assert away <= 1.2 * (plain.float() - exact).norm() / exact.norm() + 1e-3
    assert cosine(found.float().numpy(), exact.numpy()).min() > 0.999


class Mixer(nn.Module):
    """Linear layers as models have them: in a row, run twice, read by the module above, in another order."""

    def __init__(self, approximate: str) -> None:
        super().__init__()
        self.row = nn.Sequential(nn.Linear(12, 24), nn.GELU(approximate), nn.Linear(24, 12, bias=False))
        self.twice, self.read, self.last = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.act = nn.GELU(approximate)  # stands behind `last`, runs before it

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.row(images.flatten(1)[:, :12])
        x = self.twice(self.twice(x)) + nn.functional.linear(x, self.read.weight)
        return self.last(self.act(x))


@needs_packing
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_what_runs_once_is_packed_with_the_gelu_that_takes_it(approximate: str) -> None:
    torch.manual_seed(0)
    model, images = Mixer(approximate).eval().bfloat16(), torch.randn(5, 3, 2, 2).bfloat16()
    with torch.inference_mode():
        wanted = model(images)
        pack_linears(model, images[:1])
        torch.testing.assert_close(model(images), wanted, rtol=0.03, atol=0.02)
    first, between, second = model.row
    assert isinstance(first, PackedLinear)
    assert first._after == ("gelu", approximate)
    assert isinstance(between, nn.Identity)
    assert isinstance(second, PackedLinear)
    assert second._after == ("none", "")
    assert isinstance(model.last, PackedLinear)
    assert [type(m) for m in (model.twice, model.read, model.act)] == [nn.Linear, nn.Linear, nn.GELU]


@needs_packing
@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("beit_base_patch16_224", {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}),
        (
            "swinv2_tiny_window8_256",
            {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4},
        ),
    ],
)
def test_a_model_that_reads_its_weights_itself_still_computes(name: str, small: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, img_size=32, **small).eval().bfloat16()
    images = torch.randn(2, 3, 32, 32).bfloat16()
    with torch.inference_mode():
        wanted = model(images)
        pack_linears(model, images[:1])
        assert packed(model)
        torch.testing.assert_close(model(images), wanted, rtol=0.1, atol=0.1)


@needs_packing
def test_a_model_that_says_something_else_when_packed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: x * 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.GELU()).bfloat16()
    kinds = [type(module) for module in model]
    pack_linears(model, torch.ones(1, 3, 2, 2).bfloat16())
    assert [type(module) for module in model] == kinds


def test_where_torch_has_no_such_step_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_linear, "_can_pack", lambda: False)
    model = nn.Sequential(nn.Linear(4, 4)).bfloat16()
    pack_linears(model, torch.zeros(1, 4).bfloat16())
    assert not packed(model)


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, NotImplementedError, TypeError])
def test_a_step_that_torch_lacks_or_takes_otherwise_is_found_by_trying(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(PackedLinear, "__init__", refuse)
    assert not packed_linear._can_pack.__wrapped__()


@needs_packing
def test_a_model_with_a_layer_that_cannot_be_packed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 5)).bfloat16()
    layers, own = [*model], PackedLinear.__init__

    def refuse(self: PackedLinear, linear: nn.Linear, gelu: nn.Module | None = None) -> None:
        own(self, linear, gelu)
        if linear.out_features == 5:
            raise RuntimeError("no such layout")

    monkeypatch.setattr(PackedLinear, "__init__", refuse)
    pack_linears(model, torch.ones(1, 3, 2, 2).bfloat16())
    assert all(now is before for now, before in zip(model, layers, strict=True))


@needs_packing
def test_a_backbone_in_bfloat16_is_packed_and_costs_the_same_operations(tiny) -> None:
    exact, short = load_backbone(tiny.vit), load_backbone(tiny.vit, precision="bf16")
    assert not packed(exact.model)
    assert packed(short.model)
    assert operations(short) == operations(exact)
