"""A module of torch as an ONNX graph, with a batch of any size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError, UsageError, first_line

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

OPSET = 18
BATCH = "n"
"""Name of the first dimension of every input and output."""
INSTALL = "run `pip install 'img2prompt-cache[export]'`"


def export_graph(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    """Trace a module with `torch.export` and write what it computes as an ONNX graph.

    Nothing is printed, and the graph names no path, module or line of this machine: two exports of the same
    module in the same process are equal.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU. Takes the inputs in order, and gives a tensor or a tuple of them.
    inputs : mapping of str to torch.Tensor
        By name, an example with at least two rows: of fewer, torch takes their number for a constant. Their
        first dimension may have any length in the graph, the others are as they are here.
    outputs : sequence of str
        Names of what the module gives.

    Returns
    -------
    onnx.ModelProto
        Of opset 18, with operators of ONNX alone, and no metadata yet; see `onnx_file.write_graph`.

    Raises
    ------
    UsageError
        If onnxscript is not installed.
    Img2PromptError
        If torch cannot write it, because of an operator or a step that depends on values.
    ValueError
        If an example has fewer than two rows.
    """
    require("onnxscript")
    import torch

    if any(len(example) < 2 for example in inputs.values()):
        raise ValueError("an example must have at least two rows")
    rows = torch.export.Dim(BATCH)
    shapes: tuple[Any, ...] = tuple({0: rows} for _ in inputs)
    kinds = {each.kind for each in signature(module.forward).parameters.values()}
    if Parameter.VAR_POSITIONAL in kinds:
        shapes = (shapes,)
    trained = module.training
    module.eval()
    try:
        with silent(), torch.no_grad():
            program: Any = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                input_names=[*inputs],
                output_names=[*outputs],
                verbose=False,
            )
    except Exception as error:
        raise Img2PromptError(f"torch cannot write it as an ONNX graph: {_cause(error)}") from error
    finally:
        module.train(trained)
    return _plain(program.model_proto)


def _cause(error: BaseException) -> str:
    """Give the first line of what torch raised first: it wraps errors in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error, 300)


def require(library: str) -> None:
    """Refuse to go on without a library of the extra `export`.

    Raises
    ------
    UsageError
        Naming it, and how to install it.
    """
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise UsageError(f"this takes the library {library}, which is not installed; {INSTALL}")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep quiet what a library says of its own work: on both streams, as warnings, and in logs."""
    before = logging.root.manager.disable
    out, err = (io.StringIO(), io.StringIO())
    with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def _plain(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what torch notes beside the graph: names of modules, lines of code with the paths of files."""
    del graph.metadata_props[:]
    graph.doc_string = graph.graph.doc_string = ""
    del graph.graph.metadata_props[:]
    inner = graph.graph
    for each in (*inner.node, *inner.initializer, *inner.input, *inner.output, *inner.value_info):
        each.doc_string = ""
        del each.metadata_props[:]
    return graph
