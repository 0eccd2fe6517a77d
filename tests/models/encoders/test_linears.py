from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from img2prompt_cache.models.encoders import linears
from img2prompt_cache.models.encoders.linears import OneDnnLinear, use_onednn, without_onednn

needs_onednn = pytest.mark.skipif(not linears._has_onednn(), reason="torch has no such step here")


class Doubling(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 24, bias=False), Doubling(24, 8)
    return nn.Sequential(*layers).eval()


@needs_onednn
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (3, 5, 24), (0, 24)])
def test_the_values_and_the_weights_are_those_of_torch(shape: tuple[int, ...], model: nn.Module) -> None:
    plain = copy.deepcopy(model)
    use_onednn(model)
    assert [type(layer) for layer in model] == [OneDnnLinear, nn.GELU, OneDnnLinear, Doubling]
    assert {name: id(value) for name, value in model.named_parameters()}.keys() == plain.state_dict().keys()
    x = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), plain(x), atol=1e-5, rtol=1e-5)
        across = x.new_empty((*shape[::-1],)).T if len(shape) == 2 else x.transpose(0, 1)
        across.copy_(x if len(shape) == 2 else x.transpose(0, 1))
        torch.testing.assert_close(model(across), plain(across), atol=1e-5, rtol=1e-5)
        with without_onednn(model):
            assert torch.equal(model(x), plain(x))
    assert type(model[0]) is OneDnnLinear


@needs_onednn
def test_autocast_multiplies_in_its_own_format(model: nn.Module) -> None:
    plain, x = copy.deepcopy(model), torch.randn(7, 24)
    use_onednn(model)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), plain(x))


@needs_onednn
def test_the_usual_way_ends_with_an_error_too(model: nn.Module) -> None:
    use_onednn(model)
    with pytest.raises(KeyError), without_onednn(model):
        raise KeyError
    assert type(model[0]) is OneDnnLinear


def test_other_number_formats_are_left_alone(model: nn.Module) -> None:
    use_onednn(model.bfloat16())
    assert type(model[0]) is nn.Linear


def test_a_torch_without_the_step_computes_in_its_usual_way(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise AttributeError

    monkeypatch.setattr(OneDnnLinear, "forward", missing)
    assert not linears._has_onednn.__wrapped__()
    monkeypatch.setattr(linears, "_has_onednn", linears._has_onednn.__wrapped__)
    use_onednn(model)
    assert type(model[0]) is nn.Linear


def test_the_trial_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    linears._has_onednn.__wrapped__()
    assert torch.equal(torch.rand(3), wanted)
