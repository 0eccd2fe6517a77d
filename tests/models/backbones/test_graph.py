"""Backbones as ONNX graphs: every output of every architecture, as torch computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from architectures import MODELS, backbone_of
from img2prompt_cache.models.backbones.graph import PIXELS, PixelsModel, graph_of, output_name
from img2prompt_cache.models.onnx_file import read_graph, write_graph

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

QUICK = ("bottleneck", "efficientnet")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in MODELS]
)
def test_a_graph_gives_what_the_backbone_does(kind: str, tmp_path: Path):
    backbone = backbone_of(kind)
    names = ("multi", "", "k2")
    path = tmp_path / "backbone.onnx"
    write_graph(graph_of(backbone, names), path, kind="backbone", fingerprint="a" * 64)
    file = read_graph(path, kind="backbone")
    assert file.inputs == {PIXELS: (*backbone.geometry.crop, 3)}
    assert file.outputs == ("multi", "features", "k2")
    pixels = np.random.default_rng(1).integers(0, 256, (3, *backbone.geometry.crop, 3), np.uint8)
    want = backbone.read(torch.from_numpy(pixels), names)
    found = dict(zip(file.outputs, file.session(threads=1).run(None, {PIXELS: pixels}), strict=True))
    for name in names:
        values, given = want[name], found[output_name(name)]
        assert given.dtype == values.dtype
        step = 2**-9 if name == "k2" else 2e-6  # of float16, where a value lies near the middle of two
        np.testing.assert_allclose(given, values, atol=step * np.abs(values).max(), rtol=0)


def test_a_backbone_in_a_shorter_format_is_refused():
    backbone = backbone_of("efficientnet")
    backbone.compute_in("bf16")
    with pytest.raises(ValueError, match="computes in bf16"):
        PixelsModel(backbone)
