"""Connected components of similarity graphs: of vectors with a high cosine, or of given edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from img2prompt_cache.numerics.disk_array import to_disk
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

BLOCK = 2048
"""Vectors compared at a time, in blocks of this many by this many."""
AXES = 64
"""Number of directions along which vectors are first compared."""
SAMPLE = 4096
"""Evenly spaced vectors from which the directions are computed."""
SLACK = 1e-5
"""More than the rounding error of an inner product of two unit vectors in float32."""
FUZZ = 4e-6
"""More than the rounding error of a squared length; added before the root, which magnifies small errors."""
FEW = 1 / 64
"""Up to this share of a block's pairs are compared one by one; if there are more, the whole block is."""
PAIRS = 8192
"""Pairs compared one by one at a time."""
MAX_EDGES = 2**22
"""Number of edges after which they are merged into the labels."""


class Vectors(Protocol):
    """Unit vectors that are read a few at a time: an array, or an object that can be indexed like one."""

    def __len__(self) -> int:
        """Count the vectors."""

    def __getitem__(self, rows: slice | Rows, /) -> F32:
        """Read some of them, shape (n, d)."""


def similarity_components(vectors: Vectors, threshold: float) -> Rows:
    """Label unit vectors by the connected components of the graph with an edge where cosine ≥ threshold.

    All pairs are compared, but most of them only along a few directions. Let a_U be the coordinates of a
    along these orthonormal directions, and a_⊥ the rest of a. By the Cauchy–Schwarz inequality the cosine of
    a and b is at most a_U·b_U + |a_⊥||b_⊥|, so a pair for which this bound is below the threshold has no
    edge. Pairs that are known to be in the same component are skipped. The edges are merged into the labels
    from time to time, so the memory is that of a few blocks.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (m, d)
        Or an object whose rows and slices are such arrays.
    threshold : float

    Returns
    -------
    numpy.ndarray, int64, shape (m,)

    Raises
    ------
    Img2PromptError
        If the disk has too little room for the coordinates.
    """
    label = np.arange(len(vectors))
    sketch = _sketch(vectors)
    blocks = -(-len(vectors) // BLOCK)
    with stage("near-identical rows", blocks * (blocks + 1) // 2) as advance:
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
                    label, waiting, count = merge_edges(label, waiting), [], 0
                advance(1)
            label = merge_edges(label, waiting)
    return label


def edge_components(nodes: int, left: Rows, right: Rows) -> Rows:
    """Label nodes 0…`nodes`−1 by the connected components of the edges left[i] – right[i]."""
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(nodes, nodes))
    labels: Rows = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def principal_directions(vectors: Vectors, axes: int | None = None) -> F32 | None:
    """Find orthonormal directions along which bounds of cosines are close, shape (d, `axes`).

    They approximate those of the largest variance, by three power iterations (Halko et al., 2011, SIAM
    Review), on a sample. Other directions would be correct, too, but would rule out fewer pairs. None if
    vectors are short, so that bounds would save nothing. There are `AXES` if it is not said how many.
    """
    axes = AXES if axes is None else axes
    some = vectors[:: -(-len(vectors) // SAMPLE) or 1]
    if some.shape[1] <= axes + 1:
        return None
    basis = np.random.default_rng(0).normal(size=(some.shape[1], axes)).astype(np.float32)
    for _ in range(3):
        basis = np.linalg.qr(some.T @ (some @ basis))[0]
    return basis


def coordinates(vectors: F32, basis: F32) -> F32:
    """Compute short vectors (a_U, |a_⊥|) whose inner products bound the cosines from above.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)
    basis : numpy.ndarray, float32, shape (d, k)
        Orthonormal directions.

    Returns
    -------
    numpy.ndarray, float32, shape (n, k + 1)
    """
    along = vectors @ basis
    rest = np.square(vectors).sum(axis=1) - np.square(along).sum(axis=1)
    short: F32 = np.column_stack([along, np.sqrt(np.maximum(rest, 0) + np.float32(FUZZ))])
    return short


def _sketch(vectors: Vectors) -> F32:
    """Compute the coordinates of all vectors; where there are few, they are returned themselves."""
    basis = principal_directions(vectors) if len(vectors) > SAMPLE else None
    if basis is None:
        return vectors[:]
    blocks = (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))
    return to_disk((coordinates(block, basis) for block in blocks), basis.shape[1] + 1)


def _confirmed(
    vectors: Vectors, start: int, other: int, left: Rows, right: Rows, threshold: float
) -> tuple[Rows, Rows]:
    """Select the pairs of two blocks whose cosine reaches the threshold; numbers count within the blocks."""
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


def merge_edges(label: Rows, edges: list[tuple[Rows, Rows]]) -> Rows:
    """Merge labels 0…n−1 of n nodes along edges between nodes, given in pieces."""
    left, right = (np.concatenate([pair[side] for pair in edges] or [label[:0]]) for side in (0, 1))
    return edge_components(len(label), label[left], label[right])[label]
