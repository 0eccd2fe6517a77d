"""A graph of nodes: what ComfyUI ran, as its API format keeps it, and how much work reading it may cost.

A node has a kind (``class_type``) and inputs; an input is a value or a link (node, output).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

Link = tuple[str, int]
"""A node's id and the index of one of its outputs."""

MOST_NODES = 50_000
"""Nodes of a graph, the first ones; real graphs have hundreds."""
LONGEST_CHAIN = 100
"""Nodes from a sampler to its text; real graphs nest no deeper, a hostile one is cut here."""
LONGEST_NAME = 200
"""Characters of a kind or of an input's name; nothing is told from longer ones."""
MOST_WORK = 500_000
"""Inputs looked at and characters written, over the whole reading of a graph."""
VISIT = 50
"""What looking at a node costs beside its inputs."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes
    ----------
    kind : str
        The class that ran, such as ``CLIPTextEncode``.
    inputs : dict of str to object
        Values, and links as ``[id, output]``.
    outputs : tuple of str
        Names of the outputs in lower case where the workflow tells them, else empty.
    """

    kind: str
    inputs: dict[str, object]
    outputs: tuple[str, ...] = ()


@dataclass(slots=True)
class Graph:
    """Nodes by id.

    Attributes
    ----------
    nodes : dict of str to Node
    shown : dict of str to str
        Id of a node that shows text to what it showed in this run, where the workflow keeps it.
    depth : int
        Nodes between the one that is read now and where the reading began.
    left : int
        Work that may still be done, see `MOST_WORK`.
    """

    nodes: dict[str, Node]
    shown: dict[str, str] = field(default_factory=dict)
    depth: int = 0
    left: int = MOST_WORK

    def link(self, value: object) -> Link | None:
        """Give the link that an input holds; None for a value, and for a link to a node that is not there."""
        if isinstance(value, list) and len(value) == 2:
            name, output = value
            if isinstance(name, str | int) and isinstance(output, int) and str(name) in self.nodes:
                return str(name), int(output)
        return None

    def links(self, name: str) -> Iterator[tuple[str, Link]]:
        """Give the inputs of a node that are linked, with what they are linked to."""
        for key, value in self.nodes[name].inputs.items():
            link = self.link(value)
            if link is not None:
                yield key, link

    def spend(self, work: int) -> bool:
        """Count work; False once there has been too much."""
        self.left -= work
        return self.left > 0

    def visit(self, name: str) -> bool:
        """Count a look at a node; False once there have been too many."""
        return self.spend(VISIT + len(self.nodes[name].inputs))


def api_nodes(graph: object) -> dict[str, Node]:
    """Read the nodes of the API format: id to ``{"class_type", "inputs"}``; whatever is none is left out."""
    nodes: dict[str, Node] = {}
    if isinstance(graph, Mapping):
        for name, node in islice(graph.items(), MOST_NODES):
            inputs = node.get("inputs") if isinstance(node, Mapping) else None
            if isinstance(inputs, dict):
                nodes[str(name)] = Node(str(node.get("class_type", ""))[:LONGEST_NAME], _short(inputs))
    return nodes


def with_outputs(nodes: Mapping[str, Node], names: Mapping[str, Iterable[object]]) -> dict[str, Node]:
    """Add the names of outputs to nodes, which the API format leaves out."""
    return {
        name: Node(node.kind, node.inputs, tuple(str(key)[:LONGEST_NAME].lower() for key in names[name]))
        if name in names
        else node
        for name, node in nodes.items()
    }


def _short(inputs: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in inputs.items() if len(key) <= LONGEST_NAME}
