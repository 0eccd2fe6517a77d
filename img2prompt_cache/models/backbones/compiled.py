"""Graphs: the forward pass of a backbone, converted for OpenVINO and compiled for this processor.

A graph takes one image at a time. On a processor that is as fast as many, and the features of an image do not
depend on what else is in its batch. It gives the pooled feature and, where it is known where they are, the
levels. Both are outputs of the same graph in any case, since in bfloat16 a further output changes what is
rounded before it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones.compiled_file import keep_graph, load_graph
from img2prompt_cache.models.backbones.graph import PixelsModel
from img2prompt_cache.models.backbones.taps import MULTI, TOP
from img2prompt_cache.models.devices import MAX_LANES, cores, lane_threads
from img2prompt_cache.shortage import shortage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.devices import Precision

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class Graph:
    """A backbone's forward pass, compiled for this processor; several threads may run it side by side.

    Parameters
    ----------
    backbone : Backbone
        In float32, on the processor.
    precision : {"fp32", "bf16"}
        What to compute in.

    Attributes
    ----------
    names : tuple of str
        Its outputs, as `taps` names them.
    precision : str
    processor : str
        Its name.

    Raises
    ------
    Img2PromptError
        If OpenVINO cannot convert the model, or this processor does not compute in that format.
    """

    def __init__(self, backbone: Backbone, precision: Precision) -> None:
        self.names, self.precision = outputs_of(backbone), precision
        core = openvino.Core()
        self.processor = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        model = load_graph(core, backbone)
        if model is None:
            model = keep_graph(core, convert(backbone, self.names), backbone)
        lanes, threads = min(cores(), MAX_LANES), lane_threads()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            # As torch's lanes: each computes by itself, with a number of threads that never changes.
            "NUM_STREAMS": lanes,
            "INFERENCE_NUM_THREADS": lanes * threads,
            "ENABLE_CPU_PINNING": False,  # several processes would pin their threads to the same cores
        }
        try:
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            if shortage(error):
                raise
            raise Img2PromptError(
                f"{backbone.spec}: openvino cannot compile it: {_last_line(error)}"
            ) from error
        if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != _HINTS[precision]:
            raise Img2PromptError(
                f"{backbone.spec}: openvino does not compute in {precision} on this processor; "
                '`runtime="torch"` does'
            )
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(lanes):
            self._requests.put(compiled.create_infer_request())

    def read(self, pixels: Tensor, names: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Compute outputs of a batch.

        Parameters
        ----------
        pixels : torch.Tensor, uint8, shape (n, height, width, 3)
        names : collection of str
            Some of `names`.

        Returns
        -------
        dict of str to numpy.ndarray, float32, shape (n, …)
        """
        images = pixels.numpy()
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        request = self._requests.get()
        try:
            for at in range(len(images)):
                outputs = request.infer([images[at : at + 1]], share_inputs=True)
                for name in names:
                    found[name].append(outputs[self.names.index(name)])
        finally:
            self._requests.put(request)
        return {name: np.concatenate(values) for name, values in found.items()}


def outputs_of(backbone: Backbone) -> tuple[str, ...]:
    """Name the outputs of a backbone's graph: its feature, and its levels where they are known."""
    try:
        backbone.levels  # noqa: B018 whether it is known where they are
    except UsageError:
        return (TOP,)
    return TOP, MULTI


def convert(backbone: Backbone, names: tuple[str, ...]) -> openvino.Model:
    """Convert a backbone's forward pass, from torch's trace of it.

    By the steps of `openvino.convert_model`, which would send statistics of its use to its makers.

    Raises
    ------
    Img2PromptError
        If OpenVINO cannot.
    """
    shape = (1, *backbone.geometry.crop, 3)
    pixels = torch.zeros(shape, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's tracing: sizes become constants, which is meant
        try:
            module = PixelsModel(backbone, names)
            traced = torch.jit.trace(module, pixels, check_trace=False)  # type: ignore[no-untyped-call]
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(traced, example_input=pixels)
            model = frontend.convert(frontend.load(decoder))
            model.reshape(list(shape))
        except Exception as error:  # what a converter raises is of its own kinds, and differs by version
            if shortage(error):
                raise
            raise Img2PromptError(
                f"{backbone.spec}: openvino cannot convert it: {_last_line(error)}"
            ) from error
        return model


def _last_line(error: Exception) -> str:
    """Give the last line of an error of OpenVINO: those before it name files of its source."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
