"""Graphs of backbones in fewer bits: float16, or int8 for what takes most of the time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from img2prompt_cache.errors import Img2PromptError, first_line
from img2prompt_cache.models.backbones.graph import PIXELS
from img2prompt_cache.models.onnx_graph import silent

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS = ("fp32", "fp16", "int8")
IMAGES = 64
"""Images that ranges of values are measured on."""
_BATCH = 8
_MATRICES = ["MatMul", "Gemm"]


def shorten(graph: onnx.ModelProto, precision: Precision, pixels: NDArray[np.uint8]) -> onnx.ModelProto:
    """Make a graph of a backbone in fewer bits, with the same inputs and outputs.

    In int8 a convolutional network has fixed ranges, measured on images, and one scale for each channel of a
    weight; a transformer measures the ranges of its activations anew for each batch, because they differ
    between images, and has only its matrix products in int8.

    Parameters
    ----------
    graph : onnx.ModelProto
        In float32; may be changed.
    precision : {"fp32", "fp16", "int8"}
    pixels : numpy.ndarray, uint8, shape (n, height, width, 3)
        Images to measure ranges on.

    Raises
    ------
    Img2PromptError
        If that cannot be done with it.
    """
    if precision == "fp32":
        return graph
    try:
        with silent():
            short = _in_float16(graph) if precision == "fp16" else _in_int8(graph, pixels)
    except Exception as error:
        reason = first_line(error)
        raise Img2PromptError(f"a backbone cannot be exported in {precision}: {reason}") from error
    strange = [entry for entry in short.opset_import if entry.domain not in ("", "ai.onnx")]
    for entry in strange:  # not used: an operator of another domain is refused when the graph is written
        short.opset_import.remove(entry)
    return short


def is_convolutional(graph: onnx.ModelProto) -> bool:
    """Say whether most weights of a graph are those of convolutions."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    totals = {"Conv": 0, "other": 0}
    for node in graph.graph.node:
        if node.op_type in ("Conv", *_MATRICES):
            kind = "Conv" if node.op_type == "Conv" else "other"
            totals[kind] += sum(sizes.get(name, 0) for name in node.input)
    return totals["Conv"] >= totals["other"]


def _in_float16(graph: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers import float16

    found: onnx.ModelProto = float16.convert_float_to_float16(graph, keep_io_types=True)
    return found


def _in_int8(graph: onnx.ModelProto, pixels: NDArray[np.uint8]) -> onnx.ModelProto:
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "short.onnx"
        if is_convolutional(graph):
            quantization.quantize_static(
                graph, path, _Reader(pixels), per_channel=True, extra_options={"ActivationSymmetric": False}
            )
        else:
            quantization.quantize_dynamic(graph, path, op_types_to_quantize=_MATRICES, per_channel=True)
        return onnx.load_model(path)


class _Reader:
    """Images, batch by batch, as the quantiser asks for them."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = iter(np.array_split(pixels, -(-len(pixels) // _BATCH)))

    def get_next(self) -> dict[str, Any] | None:
        """Give the next batch by the name of the input; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {PIXELS: batch}
