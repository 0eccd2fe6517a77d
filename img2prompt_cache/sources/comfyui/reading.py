"""One reading of a graph: what was found for an output is kept, and cycles end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from img2prompt_cache.sources.comfyui.graph import LONGEST_CHAIN, Graph

Value = TypeVar("Value")
Place = tuple[str, int, str]
"""A node, one of its outputs, and which of the things that it carries is wanted."""


@dataclass(slots=True)
class Found(Generic[Value]):
    """Values by place; a place that is asked for while it is being read, or too deep, gives `nothing`."""

    nothing: Value
    known: dict[Place, Value] = field(default_factory=dict)
    open: set[Place] = field(default_factory=set)

    def at(self, graph: Graph, place: Place, read: Callable[[], Value]) -> Value:
        """Read a place once."""
        if place in self.known:
            return self.known[place]
        if place in self.open or len(self.open) > LONGEST_CHAIN or not graph.visit(place[0]):
            return self.nothing
        self.open.add(place)
        try:
            value = read()
        finally:
            self.open.discard(place)
        self.known[place] = value
        return value
