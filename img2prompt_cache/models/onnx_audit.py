"""What an ONNX graph may hold that is opened here: operators of ONNX, and data beside it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from img2prompt_cache.errors import check

if TYPE_CHECKING:
    import onnx

DOMAINS = ("", "ai.onnx")
"""Of the operators: those of the standard, which every runtime brings along."""


def audit(graph: onnx.ModelProto, folder: Path) -> tuple[Path, ...]:
    """Refuse a graph that does more than compute, whoever wrote it.

    Parameters
    ----------
    graph : onnx.ModelProto
        Without its external data.
    folder : pathlib.Path
        Where its file lies.

    Returns
    -------
    tuple of pathlib.Path
        The files of external data, which are there and long enough.

    Raises
    ------
    ValueError
        Saying what is in it: an operator of another domain, a function, a loop, data outside the folder.
    """
    domains = {entry.domain for entry in graph.opset_import}
    strange = sorted(domains.difference(DOMAINS))
    check(not strange, f"it takes operators of the domain {', '.join(strange)}")
    check(not graph.functions, "it defines operators of its own")
    check(not graph.training_info, "it holds steps of a training")
    check(bool(domains), "it says of no version of ONNX that its operators are of")
    files: dict[Path, None] = {}
    for node in graph.graph.node:
        check(node.domain in DOMAINS, f"it has the operator {node.op_type} of the domain {node.domain}")
        # Those of Loop and Scan run as often as they like. No graph that is written here has any.
        nested = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        check(not nested, f"it has the operator {node.op_type}, which runs a graph of its own")
    for tensor in _tensors(graph.graph):
        if tensor.external_data or tensor.data_location:
            files[_external(tensor, folder)] = None
    return tuple(files)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _external(tensor: onnx.TensorProto, folder: Path) -> Path:
    """Find the file of a tensor's data, which must be a plain file right beside the graph."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    name = fields.get("location", "")
    # One name, without a separator of any system: neither "../" nor "/etc" nor "C:" leads elsewhere.
    plain = name not in ("", ".", "..") and name.isprintable() and not set(name) & set('/\\:*?"<>|')
    check(plain and PurePosixPath(name).name == name, f"it takes data from {name[:200]!r}, not beside it")
    path: Path = folder / name
    try:
        found = path.lstat()
    except (OSError, ValueError):
        raise ValueError(f"its data {name} is not beside it") from None
    check(stat.S_ISREG(found.st_mode), f"its data {name} is no plain file")
    start, length = fields.get("offset", "0"), fields.get("length", "0")
    numbers = all(text.isascii() and text.isdecimal() and len(text) < 20 for text in (start, length))
    check(numbers, f"it takes data from {name} at no known place")
    check(int(start) + int(length) <= found.st_size, f"its data {name} is cut short")
    return path
