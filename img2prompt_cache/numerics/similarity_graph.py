"""Connected components: of near vectors, of any edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from img2prompt_cache.numerics.disk_array import spill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

BLOCK = 2048
"""Vectors compared with each other at a time."""
AXES = 64
"""Directions that vectors are compared along before they are compared as a whole."""
SAMPLE = 4096
"""Vectors that the directions are found from, evenly spaced."""
SLACK = 1e-5
"""More than the rounding of a product of two unit vectors in float32."""
FUZZ = 4e-6
"""More than the rounding of a squared length; the root of one that is next to nothing is off by far more."""
FEW = 1 / 64
"""Up to this share of a block's pairs are looked at one by one; more are multiplied out together."""
PAIRS = 8192
"""Pairs looked at one by one at a time."""
MAX_EDGES = 2**22
"""Edges kept before they are merged into the labels."""


class Vectors(Protocol):
    """Unit vectors that are read some at a time: an array, or what is like one."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: slice | Rows, /) -> F32:
        """Give some of them, shape (n, d)."""


def near(vectors: Vectors, threshold: float) -> Rows:
    """Label unit vectors by the connected components of the graph that joins those with cosine ≥ threshold.

    Every pair is looked at, but most along a few directions alone. With a_U the coordinates of a in an
    orthonormal basis of these and a_⊥ what is left of it, the cosine of a and b is at most
    a_U·b_U + |a_⊥||b_⊥| (Cauchy–Schwarz): where that is below the threshold, so is the cosine. Pairs whose
    component is known already are passed over. The others are found in blocks and merged into the labels
    before they are many, so memory stays a few blocks.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (m, d)
        Or anything that gives slices and rows of such an array.
    threshold : float

    Returns
    -------
    numpy.ndarray, int64, shape (m,)

    Raises
    ------
    Img2PromptError
        If there is no room on the disk for the coordinates.
    """
    label = np.arange(len(vectors))
    sketch = _sketch(vectors)
    for start in range(0, len(vectors), BLOCK):
        waiting: list[tuple[Rows, Rows]] = []
        count = 0
        for other in range(start, len(vectors), BLOCK):
            bounds = sketch[start : start + BLOCK] @ sketch[other : other + BLOCK].T
            left, right = np.divmod(np.flatnonzero(bounds >= threshold - SLACK), bounds.shape[1])
            news = label[left + start] != label[right + other]
            left, right = _confirmed(vectors, start, other, left[news], right[news], threshold)
            waiting.append((left + start, right + other))
            count += len(left)
            if count > MAX_EDGES:
                label, waiting, count = _merge(label, waiting), [], 0
        label = _merge(label, waiting)
    return label


def components(nodes: int, left: Rows, right: Rows) -> Rows:
    """Label `nodes` nodes by the connected components of the edges left[i] – right[i]."""
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(nodes, nodes))
    labels: Rows = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def _sketch(vectors: Vectors) -> F32:
    """Give vectors whose products are not below the cosines: a_U and |a_⊥|; or the vectors, if these are few.

    The directions are those the vectors vary most in, roughly: the range of three powers of their second
    moments (Halko et al., 2011, SIAM Review). Any others would do, only not leave out as many pairs.
    """
    some = vectors[:: -(-len(vectors) // SAMPLE) or 1]
    if len(some) == len(vectors):
        return vectors[:]
    basis = np.random.default_rng(0).normal(size=(some.shape[1], AXES)).astype(np.float32)
    for _ in range(3):
        basis = np.linalg.qr(some.T @ (some @ basis))[0]
    return spill(_coordinates(vectors, basis), basis.shape[1] + 1)


def _coordinates(vectors: Vectors, basis: F32) -> Iterator[F32]:
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        along = block @ basis
        rest = np.square(block).sum(axis=1) - np.square(along).sum(axis=1)
        yield np.column_stack([along, np.sqrt(np.maximum(rest, 0) + np.float32(FUZZ))])


def _confirmed(
    vectors: Vectors, start: int, other: int, left: Rows, right: Rows, threshold: float
) -> tuple[Rows, Rows]:
    """Take those pairs of two blocks whose cosine reaches the threshold; numbers are within the blocks."""
    if len(left) > FEW * BLOCK**2:
        scores = vectors[start : start + BLOCK] @ vectors[other : other + BLOCK].T
        keep = scores[left, right] >= threshold
    else:
        keep = np.empty(len(left), bool)
        for first in range(0, len(left), PAIRS):
            some = slice(first, first + PAIRS)
            a, b = vectors[left[some] + start], vectors[right[some] + other]
            keep[some] = np.einsum("ij,ij->i", a, b) >= threshold
    return left[keep], right[keep]


def _merge(label: Rows, edges: list[tuple[Rows, Rows]]) -> Rows:
    left, right = (np.concatenate([pair[side] for pair in edges] or [label[:0]]) for side in (0, 1))
    return components(len(label), label[left], label[right])[label]
