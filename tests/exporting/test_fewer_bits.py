"""Graphs of backbones in fewer bits: which way they are taken, and what stays in float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.exporting.fewer_bits import is_convolutional, shorten
from img2prompt_cache.models.backbones.graph import PIXELS
from img2prompt_cache.models.onnx_audit import audit
from img2prompt_cache.models.onnx_file import open_session

pytest.importorskip("onnxruntime")

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 4, 4, 3), np.uint8)


def backbone(kind: str) -> onnx.ModelProto:
    """Pixels to five features, by a convolution or a matrix product."""
    shape = (5, 3, 4, 4) if kind == "Conv" else (48, 5)
    weight = numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float32), "w")
    middle = "turned" if kind == "Conv" else "flat"
    nodes = [
        helper.make_node("Cast", [PIXELS], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["turned"], ["flat"]),
        helper.make_node(kind, [middle, "w"], ["y"]),
        helper.make_node("Flatten", ["y"], ["features"]),
    ]
    given = helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["n", 4, 4, 3])
    found = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(nodes, "g", [given], [found], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("kind", "precision", "operator"),
    [("Conv", "int8", "QuantizeLinear"), ("MatMul", "int8", "MatMulInteger"), ("MatMul", "fp16", "Cast")],
)
def test_a_graph_in_fewer_bits_computes_about_the_same(kind, precision, operator, tmp_path):
    want = open_session(backbone_bytes := backbone(kind).SerializeToString()).run(None, {PIXELS: IMAGES})[0]
    graph = onnx.load_model_from_string(backbone_bytes)
    assert is_convolutional(graph) == (kind == "Conv")
    short = shorten(graph, precision, IMAGES)
    assert audit(short, tmp_path) == ()
    assert operator in {node.op_type for node in short.graph.node}
    assert [value.name for value in short.graph.output] == ["features"]
    found = open_session(short.SerializeToString()).run(None, {PIXELS: IMAGES})[0]
    assert found.dtype == np.float32
    away = np.abs(found - want).max() / np.abs(want).max()
    assert 1e-9 < away < 0.03
    weights = {tensor.data_type for tensor in short.graph.initializer if np.prod(tensor.dims) == 240}
    assert weights == {TensorProto.INT8 if precision == "int8" else TensorProto.FLOAT16}


def test_in_float32_nothing_changes():
    graph = backbone("Conv")
    assert shorten(graph, "fp32", IMAGES) is graph


def test_a_graph_that_cannot_be_shortened_is_named():
    graph = backbone("Conv")
    graph.graph.node[3].input[1] = "nothing"
    with pytest.raises(Img2PromptError, match="a backbone cannot be exported in int8"):
        shorten(graph, "int8", IMAGES)
