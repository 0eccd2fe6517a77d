"""A partition of nodes into components, which grows as edges are added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.similarity_graph import edge_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]


class Forest:
    """Components of nodes 0…n−1, at first each alone: a disjoint-set forest (Tarjan, 1975, J. ACM).

    Adding edges takes time and memory by their number, not by that of the nodes.

    Parameters
    ----------
    n : int
    """

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def find(self, nodes: Rows) -> Rows:
        """Give the root of the component of each node: equal for nodes of one component."""
        parent = self._parent
        roots = parent[nodes]
        while True:
            above = parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        parent[nodes] = roots
        return roots

    def join(self, left: Rows, right: Rows) -> None:
        """Add the edges left[i] – right[i]."""
        one, other = self.find(left), self.find(right)
        apart = one != other
        if not apart.any():
            return
        # Only the roots of these edges have to be looked at.
        roots, place = np.unique(np.concatenate([one[apart], other[apart]]), return_inverse=True)
        component = edge_components(len(roots), *np.split(place, 2))
        first = np.full(int(component.max()) + 1, -1)
        first[component[::-1]] = roots[::-1]  # the last that is assigned is the first root of each
        self._parent[roots] = first[component]

    def labels(self) -> Rows:
        """Give the root of every node, int64, shape (n,)."""
        return self.find(np.arange(len(self._parent)))
