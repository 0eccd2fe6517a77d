"""Shortened last blocks against whole ones: the same features, the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from architectures import make
from img2prompt_cache.models.backbones.architectures import chain_of
from img2prompt_cache.models.backbones.build import shorten_last
from img2prompt_cache.models.backbones.rewrites import class_token
from img2prompt_cache.models.backbones.rewrites.class_token import Readout, shorten
from img2prompt_cache.models.backbones.tail import Middle, Tail, tail_of
from trunks import trunk_values

SHORT = ("vit", "vit tiny", "clip")
WHOLE = (
    "vit averaged",
    "vit attention pool",
    "deit distilled",
    "clip averaged",
    "clip attention pool",
    "resnet",
)


def before_last(tail: Tail, values: torch.Tensor) -> torch.Tensor:
    x = Middle(tail.blocks[:-1])(values)
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


@pytest.mark.parametrize("kind", SHORT)
def test_a_model_with_a_shortened_block_gives_the_same_with_any_taps(kind: str) -> None:
    model, images = make(kind)
    short = shorten_last(copy.deepcopy(model), images[:1].shape)
    assert any(isinstance(module, Readout) for module in short.modules())
    with torch.inference_mode():
        found = chain_of(short).read(images, {"", "levels", "k1"})
        expected = chain_of(model).read(images, {"", "levels", "k1"})
        torch.testing.assert_close(short(images), model(images), rtol=1e-4, atol=1e-5)
        assert torch.equal(found[""], short(images))
        assert torch.equal(found[""], chain_of(short).read(images, {""})[""])
        assert torch.equal(found["levels"], expected["levels"])
        assert torch.equal(found["k1"], expected["k1"])


class Attention(nn.Module):
    """As timm had it before gates and norms."""

    def __init__(self, new: nn.Module) -> None:
        super().__init__()
        self.num_heads, self.scale = new.num_heads, new.scale
        self.qkv, self.q_norm, self.k_norm = new.qkv, nn.Identity(), nn.Identity()
        self.proj, self.proj_drop = new.proj, new.proj_drop

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        n, tokens, c = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        seen = ((q * self.scale) @ k.mT).softmax(-1) @ v
        return self.proj_drop(self.proj(seen.transpose(1, 2).reshape(n, tokens, c)))


def test_attention_of_an_older_timm_has_neither_gate_nor_norm() -> None:
    model, _ = make("vit")
    block, head = model.blocks[-1], tail_of(model, 1).head
    block.attn = Attention(block.attn)
    x = torch.randn(1, 5, block.norm1.weight.numel())
    short = shorten(block, head, x)
    assert isinstance(short, Readout)
    with torch.inference_mode():
        torch.testing.assert_close(short(x), block(x)[:, :1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_model_of_which_more_is_read_stays_as_it_is(kind: str) -> None:
    model, images = make(kind)
    assert not any(isinstance(m, Readout) for m in shorten_last(model, images[:1].shape).modules())


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("k", [1, 2])
def test_features_and_gradients_are_those_of_the_whole_block(kind: str, k: int) -> None:
    model, images = make(kind)
    tail = tail_of(model, k)
    with torch.inference_mode():
        values = trunk_values(model, images, k)
    values = values.clone()
    tail = copy.deepcopy(tail).requires_grad_(requires_grad=True)
    last = shorten(tail.blocks[-1], tail.head, before_last(tail, values[:1]))
    assert isinstance(last, Readout)
    short = Tail([*tail.blocks[:-1], last], tail.head)
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
    tail = tail_of(model, 2)
    with torch.inference_mode():
        x = before_last(tail, trunk_values(model, images, 2))
    assert shorten(tail.blocks[-1], tail.head, x) is tail.blocks[-1]


def test_a_step_that_is_not_the_block_s_own_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = make("vit")
    tail = tail_of(model, 1)

    def other(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return class_token._timm(block, x) * 1.01 + 0.1 * x[:, :1]

    monkeypatch.setitem(class_token._STEPS, "timm.models.vision_transformer.Block", other)
    with torch.inference_mode():
        x = before_last(tail, trunk_values(model, images, 1))
    assert shorten(tail.blocks[-1], tail.head, x) is tail.blocks[-1]


def test_a_block_that_its_library_builds_otherwise_stays_as_it_is() -> None:
    model, images = make("vit")
    tail = tail_of(model, 1)
    with torch.inference_mode():
        x = before_last(tail, trunk_values(model, images, 1))
    block = tail.blocks[-1]
    assert isinstance(shorten(block, tail.head, x), Readout)
    block.attn.k_normaliser = block.attn.k_norm
    del block.attn.k_norm
    block.attn.forward = lambda tokens, **_: tokens  # its own, which does without the name that is gone
    assert shorten(block, tail.head, x) is block
