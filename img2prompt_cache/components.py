"""Connected components: of near vectors, of any edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

BLOCK = 1024
"""Vectors compared with each other at a time."""
MAX_EDGES = 2**22
"""Edges kept before they are merged into the labels."""


class Vectors(Protocol):
    """Unit vectors that are read a slice at a time: an array, or what is like one."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, part: slice, /) -> NDArray[np.float32]:
        """Give some of them, shape (n, d)."""


def near(vectors: Vectors, threshold: float) -> Rows:
    """Label unit vectors by the connected components of the graph that joins those with cosine ≥ threshold.

    Pairs are found in blocks and merged into the labels before they are many, so memory stays a few blocks.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (m, d)
        Or anything that gives slices of such an array.
    threshold : float

    Returns
    -------
    numpy.ndarray, int64, shape (m,)
    """
    label = np.arange(len(vectors))
    waiting: list[tuple[Rows, Rows]] = []
    count = 0
    for left, right in _edges(vectors, threshold):
        news = label[left] != label[right]
        waiting.append((left[news], right[news]))
        count += int(news.sum())
        if count > MAX_EDGES:
            label, waiting, count = _merge(label, waiting), [], 0
    return _merge(label, waiting)


def _edges(vectors: Vectors, threshold: float) -> Iterator[tuple[Rows, Rows]]:
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        for other in range(start, len(vectors), BLOCK):
            scores = block @ vectors[other : other + BLOCK].T
            left, right = np.divmod(np.flatnonzero(scores >= threshold), scores.shape[1])
            yield left + start, right + other


def _merge(label: Rows, edges: list[tuple[Rows, Rows]]) -> Rows:
    left, right = (np.concatenate([pair[side] for pair in edges] or [label[:0]]) for side in (0, 1))
    return components(len(label), label[left], label[right])[label]


def components(nodes: int, left: Rows, right: Rows) -> Rows:
    """Label `nodes` nodes by the connected components of the edges left[i] – right[i]."""
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(nodes, nodes))
    labels: Rows = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
