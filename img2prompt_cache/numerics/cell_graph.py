"""Connected components of many vectors with a high cosine, of which most pairs are never compared.

Like an inverted file (see `ivf`), vectors are partitioned into √n cells around k-means centroids, and each
is compared with those of the cells nearest to it: n·√n comparisons instead of n². They are compared along the
few directions of `similarity_graph.coordinates` first, which bound each cosine from above; the vectors
themselves are read once to compute these, and then only where the bound leaves a pair open. The share of the
near pairs that this finds, its recall, is measured by comparing a sample of the vectors with all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.clusters import BLOCK as READ
from img2prompt_cache.numerics.clusters import SAMPLE, fit_centroids, nearest_centroids
from img2prompt_cache.numerics.disk_array import release, take_rows, to_disk
from img2prompt_cache.numerics.forest import Forest
from img2prompt_cache.numerics.similarity_graph import (
    BLOCK,
    FEW,
    PAIRS,
    SLACK,
    coordinates,
    principal_directions,
)
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.similarity_graph import Vectors

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]
    Cells = NDArray[np.int32]

QUERIES = 1000
"""Vectors that are compared with all, to measure recall."""
TARGET_RECALL = 0.99
"""Share of the near pairs to find; more cells are searched until it is reached."""
AXES = 192
"""Number of directions along which vectors are first compared: with more, fewer pairs are left open."""
MOST_PROBES = 64
"""Cells searched for each vector at most."""


def cell_components(vectors: Vectors, threshold: float, seed: int = 0) -> tuple[Rows, float]:
    """Label unit vectors by the connected components of the graph with an edge where cosine ≥ threshold.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)
        Or an object whose rows and slices are such arrays.
    threshold : float
    seed : int
        Of the cells, and of the sample.

    Returns
    -------
    label : numpy.ndarray, int64, shape (n,)
        An edge may be missing, so that a component can be in several parts; none has too much.
    recall : float
        Share of the near pairs that were compared, of those with a vector of the sample; 1 if it has none.

    Raises
    ------
    Img2PromptError
        If the disk has too little room for the coordinates.
    """
    n = len(vectors)
    rng = np.random.default_rng(seed)
    short = _short(vectors)
    sample = take_rows(short, np.sort(rng.permutation(n)[:SAMPLE]))
    centroids = fit_centroids(sample, max(1, round(n**0.5)), rng)
    del sample
    drawn = np.sort(rng.permutation(n)[:QUERIES])
    cell = np.empty(n, np.int32)
    for start in range(0, n, READ):
        cell[start : start + READ] = nearest_centroids(short[start : start + READ], centroids)
    probes, recall = _choose_probes(vectors, short, drawn, cell, centroids, threshold)
    # In the order of their cells, vectors that are compared lie close together on the disk.
    order = np.argsort(cell, kind="stable")
    short = to_disk((take_rows(short, some) for some in _parts(order)), short.shape[1])
    searched = np.empty((n, probes), np.int32)
    for start in range(0, n, READ):
        searched[start : start + READ] = _nearest_cells(short[start : start + READ], centroids, probes)
    forest = Forest(n)
    with stage("near-identical rows", len(centroids)) as advance:
        for inside, around in _neighbourhoods(cell[order], searched, len(centroids)):
            for left in _parts(inside, BLOCK):
                for right in _parts(around, BLOCK):
                    _join_near(forest, vectors, short, order, left, right, threshold)
            release(short)
            advance(1)
    label = np.empty(n, np.int64)
    label[order] = forest.labels()
    return label, recall


def _parts(rows: Rows, size: int = READ) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _short(vectors: Vectors) -> F32:
    """Compute the coordinates of all vectors, on disk; vectors that are as short are kept themselves."""
    basis = principal_directions(vectors, AXES)
    blocks = (vectors[start : start + READ] for start in range(0, len(vectors), READ))
    if basis is None:
        return to_disk(blocks, vectors[:1].shape[1])
    return to_disk((coordinates(block, basis) for block in blocks), basis.shape[1] + 1)


def _nearest_cells(vectors: F32, centroids: F32, probes: int) -> Cells:
    """Find the cells to search for each vector, in any order."""
    if probes == len(centroids):
        return np.tile(np.arange(probes, dtype=np.int32), (len(vectors), 1))
    products = vectors @ centroids.T
    found: Cells = np.argpartition(products, len(centroids) - probes, axis=1)[:, -probes:].astype(np.int32)
    return found


def _choose_probes(
    vectors: Vectors, short: F32, drawn: Rows, cell: Cells, centroids: F32, threshold: float
) -> tuple[int, float]:
    """Find how many cells to search, and the share of near pairs that it finds, by comparing some with all.

    A pair is found from either side. Here the side of the drawn vector counts, so a little more is found.
    """
    queries = take_rows(short, drawn)
    order = np.argsort(-(queries @ centroids.T), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    count = np.zeros(len(centroids), np.int64)
    for start in range(0, len(short), BLOCK):
        bounds = queries @ short[start : start + BLOCK].T
        query, other = np.divmod(np.flatnonzero(bounds >= threshold - SLACK), bounds.shape[1])
        apart = drawn[query] != other + start
        query, other = query[apart], other[apart] + start
        near = _near(vectors, drawn[query], other, threshold)
        count += np.bincount(rank[query[near], cell[other[near]]], minlength=len(count))
    most = min(MOST_PROBES, len(centroids))
    if not count.sum():
        return min(4, most), 1.0
    found = np.cumsum(count) / count.sum()
    probes = min(int(np.searchsorted(found, TARGET_RECALL)) + 1, most)
    return probes, float(found[probes - 1])


def _neighbourhoods(cell: Cells, searched: Cells, cells: int) -> Iterator[tuple[Rows, Rows]]:
    """For each cell, give the vectors in it and all that search it; `cell` ascends."""
    ends = np.searchsorted(cell, np.arange(cells + 1))
    flat = searched.ravel()
    by_cell = np.argsort(flat, kind="stable")
    stops = np.searchsorted(flat[by_cell], np.arange(cells + 1))
    for number in range(cells):
        inside = np.arange(ends[number], ends[number + 1])
        around = by_cell[stops[number] : stops[number + 1]] // searched.shape[1]
        if len(inside) and len(around):
            yield inside, around


def _join_near(
    forest: Forest, vectors: Vectors, short: F32, order: Rows, left: Rows, right: Rows, threshold: float
) -> None:
    """Join the vectors of two sets that are near each other, numbered in the order of the cells."""
    bounds = short[right] @ short[left].T
    _, own, same = np.intersect1d(right, left, return_indices=True)
    bounds[own, same] = -1
    # The likeliest partner of each first: where many are near, that joins most of them.
    best = bounds.argmax(axis=1)
    likely = np.flatnonzero(bounds[np.arange(len(right)), best] >= threshold - SLACK)
    if not len(likely):
        return
    _join_open(forest, vectors, order, left[best[likely]], right[likely], threshold)
    two, one = np.divmod(np.flatnonzero(bounds >= threshold - SLACK), len(left))
    apart = forest.find(right)[two] != forest.find(left)[one]
    _join_open(forest, vectors, order, left[one[apart]], right[two[apart]], threshold)


def _join_open(
    forest: Forest, vectors: Vectors, order: Rows, left: Rows, right: Rows, threshold: float
) -> None:
    """Join those pairs of vectors that are near and not of one component already."""
    apart = forest.find(left) != forest.find(right)
    left, right = left[apart], right[apart]
    near = _near(vectors, order[left], order[right], threshold)
    forest.join(left[near], right[near])


def _near(vectors: Vectors, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
    """Tell for pairs of at most `BLOCK` by `BLOCK` vectors whether their cosine reaches the threshold."""
    near = np.empty(len(left), bool)
    if not len(left):
        return near
    (ours, one), (others, two) = (np.unique(side, return_inverse=True) for side in (left, right))
    a, b = vectors[ours], vectors[others]
    if len(left) > FEW * len(a) * len(b):
        return (a @ b.T)[one, two] >= threshold
    for first in range(0, len(left), PAIRS):
        some = slice(first, first + PAIRS)
        near[some] = np.einsum("ij,ij->i", a[one[some]], b[two[some]]) >= threshold
    return near
