"""Shortened last blocks against whole ones: the same features, the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from test_backbones_trunks import make
from torch import nn

from img2prompt_cache.backbones import readout
from img2prompt_cache.backbones.readout import Readout, shorten
from img2prompt_cache.backbones.trunks import split

SHORT = ("vit", "vit tiny", "clip")
WHOLE = (
    "vit averaged",
    "vit attention pool",
    "deit distilled",
    "clip averaged",
    "clip attention pool",
    "resnet",
)


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("k", [1, 2])
def test_features_and_gradients_are_those_of_the_whole_block(kind: str, k: int) -> None:
    model, images = make(kind)
    trunk, tail = split(model, k)
    with torch.inference_mode():
        values = trunk(images)
    values = values.clone()
    tail = copy.deepcopy(tail).requires_grad_(requires_grad=True)
    short = shorten(tail, values[:1])
    assert isinstance(short.blocks[-1], Readout)
    features = short(values)
    torch.testing.assert_close(features, tail(values), rtol=1e-4, atol=1e-5)
    found = torch.autograd.grad(features.square().sum(), list(short.parameters()))
    expected = torch.autograd.grad(tail(values).square().sum(), list(tail.parameters()))
    assert [id(p) for p in short.parameters()] == [id(p) for p in tail.parameters()]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", WHOLE)
def test_where_more_is_read_nothing_is_left_out(kind: str) -> None:
    model, images = make(kind)
    trunk, tail = split(model, 2)
    with torch.inference_mode():
        assert shorten(tail, trunk(images)) is tail


def test_a_step_that_is_not_the_block_s_own_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = make("vit")
    trunk, tail = split(model, 1)

    def other(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return readout._timm(block, x) * 1.01 + 0.1 * x[:, :1]

    monkeypatch.setitem(readout._STEPS, "timm.models.vision_transformer.Block", other)
    with torch.inference_mode():
        assert shorten(tail, trunk(images)) is tail
