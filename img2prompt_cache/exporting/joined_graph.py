"""ONNX graphs joined into one: the outputs of some are the inputs of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

PRODUCER = "img2prompt-cache"


class JoinedGraph:
    """A graph that others are added to, each with names of its own.

    Attributes
    ----------
    model : onnx.ModelProto
        All that was added so far.
    """

    def __init__(self) -> None:
        import onnx

        self.model = onnx.ModelProto(producer_name=PRODUCER)
        self.model.graph.name = PRODUCER
        self._values: set[str] = set()

    def add(
        self,
        graph: onnx.ModelProto,
        name: str,
        names: Mapping[str, str],
        *,
        values: str = "",
        inputs: bool = False,
        outputs: bool = False,
    ) -> None:
        """Add a graph.

        Parameters
        ----------
        graph : onnx.ModelProto
            Without functions and nested graphs.
        name : str
            Stands before all of its names.
        names : mapping of str to str
            Its inputs and outputs, and what they are called here: an input by the name of an output that was
            added before, or of an input of the whole.
        values : str
            Stands before the names of its constants, in place of `name`: graphs with the same constants and
            the same `values` share them.
        inputs, outputs : bool
            Whether its inputs become inputs of the whole, where there is none of that name yet, and its
            outputs outputs.
        """
        mine, model = self.model.graph, self.model
        if not model.opset_import:
            model.opset_import.extend(graph.opset_import)
        if [*model.opset_import] != [*graph.opset_import]:
            raise ValueError("the graphs are of different versions of ONNX")
        model.ir_version = max(model.ir_version, graph.ir_version)
        held = values or name
        known = {"": ""} | dict(names)
        for tensor in graph.graph.initializer:
            known[tensor.name] = f"{held}/{tensor.name}"
            if known[tensor.name] not in self._values:
                self._values.add(known[tensor.name])
                mine.initializer.append(tensor)
                mine.initializer[-1].name = known[tensor.name]

        def called(value: str) -> str:
            return known.setdefault(value, f"{name}/{value}")

        for node in graph.graph.node:
            mine.node.append(node)
            added: onnx.NodeProto = mine.node[-1]
            added.name = f"{name}/{node.name}"
            added.input[:] = map(called, node.input)
            added.output[:] = map(called, node.output)
        there = {value.name for value in mine.input}
        for value in graph.graph.input:
            if inputs and called(value.name) not in there:
                mine.input.append(value)
                mine.input[-1].name = called(value.name)
        for value in graph.graph.output if outputs else ():
            mine.output.append(value)
            mine.output[-1].name = called(value.name)

    def prune(self) -> None:
        """Remove what no output depends on."""
        mine = self.model.graph
        needed = {value.name for value in mine.output}
        kept = []
        for node in reversed(mine.node):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        nodes = [*reversed(kept)]
        if len(nodes) < len(mine.node):
            copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
            del mine.node[:]
            mine.node.extend(copies)
        unused = [at for at, tensor in enumerate(mine.initializer) if tensor.name not in needed]
        for at in reversed(unused):
            del mine.initializer[at]
