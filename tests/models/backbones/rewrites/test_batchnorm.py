"""Folding batch norm: the same function, fewer modules; left alone where it would not be."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from img2prompt_cache.models.backbones.rewrites.batchnorm import fold_batchnorm

EXAMPLE = torch.zeros(1, 3, 64, 64)


def _lively(model: nn.Module) -> nn.Module:
    """Give every batch norm statistics and weights of its own, so that folding has something to fold."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_folded_model_is_the_same_function(name: str) -> None:
    torch.manual_seed(0)
    model = _lively(timm.create_model(name, num_classes=0))
    folded = fold_batchnorm(model, EXAMPLE)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), model(images), rtol=1e-3, atol=1e-4)


def test_model_without_batch_norm_is_returned_as_it_is() -> None:
    model = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    assert fold_batchnorm(model, EXAMPLE) is model


class _TwoReaders(nn.Module):
    """A convolution whose output is used beside its batch norm: folding would change the other use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        return (self.norm(maps) + maps).mean((2, 3))


def test_convolution_that_is_read_twice_is_not_folded() -> None:
    model = _lively(_TwoReaders())
    assert fold_batchnorm(model, EXAMPLE) is model
