"""One reading of a graph: what was found for an output is kept, and cycles end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from img2prompt_cache.sources.comfyui.graph import LONGEST_CHAIN, Graph

Value = TypeVar("Value")
Place = tuple[str, int, str]
"""A node, one of its outputs, and which of the things that it carries is wanted."""


@dataclass(slots=True)
class Found(Generic[Value]):
    """Values by place; a place that is being read, or is too far, or costs too much, gives `nothing`."""

    nothing: Value
    known: dict[Place, Value] = field(default_factory=dict)

    def begin(self, graph: Graph, place: Place) -> bool:
        """Tell whether a place is to be read now; `finish` is to follow."""
        if place in self.known or graph.depth >= LONGEST_CHAIN or not graph.visit(place[0]):
            return False
        self.known[place] = self.nothing
        graph.depth += 1
        return True

    def finish(self, graph: Graph, place: Place, value: Value) -> None:
        """Keep what was read."""
        self.known[place] = value
        graph.depth -= 1

    def get(self, place: Place) -> Value:
        """Give what was read, as far as it is."""
        return self.known.get(place, self.nothing)
