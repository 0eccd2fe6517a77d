"""Packed linear layers against the ones they are made of."""

from __future__ import annotations

import copy

import pytest
import torch
from test_backbones_trunks import make
from torch import nn

from img2prompt_cache.backbones import load_backbone, pack
from img2prompt_cache.backbones.cost import operations
from img2prompt_cache.backbones.pack import PackedLinear, pack_linears
from img2prompt_cache.metrics import cosine

needs_packing = pytest.mark.skipif(not pack._can_pack(), reason="oneDNN has no such step here")


def packed(model: nn.Module) -> int:
    return sum(isinstance(module, PackedLinear) for module in model.modules())


@needs_packing
@pytest.mark.parametrize("kind", ["vit", "clip", "vit averaged", "deit distilled"])
def test_features_are_as_close_to_those_of_float32_as_unpacked_ones(kind: str) -> None:
    model, images = make(kind)
    short = copy.deepcopy(model).bfloat16()
    with torch.inference_mode():
        exact, plain = model(images), short(images.bfloat16())
        pack_linears(short)
        assert packed(short)
        found = short(images.bfloat16())
    away = (found.float() - exact).norm() / exact.norm()
    assert away <= 1.2 * (plain.float() - exact).norm() / exact.norm() + 1e-3
    assert cosine(found.float().numpy(), exact.numpy()).min() > 0.999


@needs_packing
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gelu_is_fused_and_is_the_same_gelu(approximate: str, *, bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 24, bias=bias), nn.GELU(approximate), nn.Linear(24, 8)).bfloat16()
    x = torch.randn(7, 5, 40).bfloat16()
    with torch.inference_mode():
        wanted = model(x)
        pack_linears(model)
        assert [type(module) for module in model] == [PackedLinear, nn.Identity, PackedLinear]
        torch.testing.assert_close(model(x), wanted, rtol=0.02, atol=0.02)


@needs_packing
def test_what_follows_by_name_only_is_not_fused() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act = nn.Linear(8, 8), nn.GELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(self.act(x))

    torch.manual_seed(0)
    model, x = Crossed().bfloat16(), torch.randn(3, 8).bfloat16()
    with torch.inference_mode():
        wanted = model(x)
        pack_linears(model)
        assert isinstance(model.act, nn.GELU)
        torch.testing.assert_close(model(x), wanted, rtol=0.02, atol=0.02)


def test_where_torch_has_no_such_step_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "_can_pack", lambda: False)
    model = nn.Sequential(nn.Linear(4, 4)).bfloat16()
    pack_linears(model)
    assert not packed(model)


@needs_packing
def test_a_backbone_in_bfloat16_is_packed_and_costs_the_same_operations(tiny) -> None:
    exact, short = load_backbone(tiny.vit), load_backbone(tiny.vit, precision="bf16")
    assert not packed(exact.model)
    assert packed(short.model)
    assert operations(short) == operations(exact)
