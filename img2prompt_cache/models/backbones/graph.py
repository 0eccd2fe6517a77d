"""A backbone as an ONNX graph: pixels in, its outputs out."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from img2prompt_cache.models.backbones.build import noise
from img2prompt_cache.models.backbones.taps import TOP
from img2prompt_cache.models.onnx_graph import export_graph

if TYPE_CHECKING:
    import onnx

    from img2prompt_cache.models.backbones.base import Backbone

PIXELS = "pixels"
"""Name of the input: uint8, shape (n, height, width, 3), as `Geometry.apply` gives it."""


class PixelsModel(nn.Module):
    """A backbone as a module: pixels (n, height, width, 3), uint8, to its outputs, in the order of `names`.

    Its outputs are what `Backbone.read` gives in float32: those of a trunk are rounded to float16.

    Parameters
    ----------
    backbone : Backbone
        In float32, on the CPU. Its parameters are shared.
    names : collection of str
        As `taps` names them.

    Raises
    ------
    UsageError
        If it has no such output.
    ValueError
        If it computes in another number format.
    """

    def __init__(self, backbone: Backbone, names: Collection[str] = (TOP,)) -> None:
        super().__init__()
        if backbone.precision != "fp32":
            raise ValueError(f"{backbone.spec} computes in {backbone.precision}")
        self.backbone, self.names = backbone, tuple(names)
        backbone.read(noise(backbone), self.names)  # finds the places of its outputs, and checks them
        self.model = backbone.model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs."""
        found = self.backbone.outputs(pixels, self.names)
        return tuple(found[name] for name in self.names)


def output_name(name: str) -> str:
    """Give the name that an output has in a graph: ``"features"`` for the pooled feature, which is ``""``."""
    return name or "features"


def graph_of(backbone: Backbone, names: Collection[str] = (TOP,)) -> onnx.ModelProto:
    """Write a backbone as an ONNX graph, from `PIXELS` to each output, named by `output_name`.

    Parameters
    ----------
    backbone : Backbone
        In float32, on the CPU.
    names : collection of str

    Raises
    ------
    UsageError
        If it has no such output, or a library is not installed.
    ValueError
        If it computes in another number format.
    """
    model = PixelsModel(backbone, names)
    example = torch.cat([noise(backbone), noise(backbone)])
    return export_graph(model, {PIXELS: example}, [*map(output_name, model.names)])
