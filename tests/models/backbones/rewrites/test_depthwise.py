"""Depthwise convolutions in pieces against torch's own: the same output, the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from img2prompt_cache.models.backbones.rewrites.depthwise import Depthwise, quicken


def pair(layer: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    own = nn.Sequential(layer)
    quick = copy.deepcopy(own)
    quicken(quick)
    return own, quick


def gradients(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_(requires_grad=True)
    out = model(x)
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return out, *torch.autograd.grad((out.float().sin() * weights).sum(), [x, *model.parameters()])


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(4, 7)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(7, 10), st.integers(7, 10)),
    bias=st.booleans(),
    last=st.booleans(),
)
def test_output_and_gradients_are_those_of_the_layer_it_was(
    kernel: tuple[int, int], padding: tuple[int, int], size: tuple[int, int], bias: bool, last: bool
) -> None:
    torch.manual_seed(0)
    own, quick = pair(nn.Conv2d(6, 6, kernel, padding=padding, groups=6, bias=bias))
    assert type(quick[0]) is Depthwise
    x = torch.randn(3, 6, *size)
    x = x.to(memory_format=torch.channels_last) if last else x
    for found, expected in zip(gradients(quick, x), gradients(own, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_under_autocast_it_computes_in_bfloat16_and_its_gradients_are_the_parameters_dtype() -> None:
    torch.manual_seed(0)
    own, quick = pair(nn.Conv2d(4, 4, 5, padding=2, groups=4))
    x = torch.randn(2, 4, 7, 7)
    expected = gradients(own, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(quick, x)
    assert found[0].dtype == torch.bfloat16
    assert {value.dtype for value in found[1:]} == {torch.float32}
    for one, other in zip(found, expected, strict=True):
        assert 0 < (one.float() - other).norm() < 0.02 * other.norm()


def test_a_frozen_layer_has_no_gradient() -> None:
    _, quick = pair(nn.Conv2d(4, 4, 5, padding=2, groups=4))
    quick.requires_grad_(requires_grad=False)
    x = torch.randn(2, 4, 7, 7, requires_grad=True)
    quick(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in quick.parameters())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 5),
        nn.Conv2d(4, 8, 5, groups=4),
        nn.Conv2d(4, 4, 5, groups=4, stride=2),
        nn.Conv2d(4, 4, 5, groups=4, dilation=2),
        nn.Conv2d(4, 4, 5, groups=4, padding="same"),
        nn.Conv2d(4, 4, 5, groups=4, padding=2, padding_mode="reflect"),
    ],
)
def test_other_layers_stay_as_they_are(layer: nn.Conv2d) -> None:
    assert type(pair(layer)[1][0]) is nn.Conv2d


def test_parameters_and_their_names_stay() -> None:
    model = nn.ModuleDict(
        {
            "wide": nn.Conv2d(4, 4, 5, groups=4),
            "inner": nn.Sequential(nn.Conv2d(6, 6, 7, groups=6, bias=False)),
        }
    )
    before = dict(model.named_parameters())
    quicken(model)
    after = dict(model.named_parameters())
    assert [*after] == [*before] == ["wide.weight", "wide.bias", "inner.0.weight"]
    assert all(after[name] is value for name, value in before.items())
    assert model.state_dict().keys() == before.keys()
    assert [type(model["wide"]), type(model["inner"][0])] == [Depthwise, Depthwise]


def test_on_another_device_it_is_the_layer_it_was() -> None:
    _, quick = pair(nn.Conv2d(4, 4, 5, groups=4, padding=2))
    x = torch.ones(1, 4, 8, 8, device="meta", requires_grad=True)
    out = quick.to("meta")(x)
    assert (out.shape, out.device.type) == ((1, 4, 8, 8), "meta")
    assert "Convolution" in type(out.grad_fn).__name__
