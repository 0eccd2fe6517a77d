"""Connected components of many vectors with a high cosine, of which most pairs are never compared.

Like an inverted file (see `ivf`), vectors are partitioned into √n cells around k-means centroids, and each
is compared with those of the cells nearest to it: n·√n comparisons instead of n². The share of the near pairs
that this finds, its recall, is measured by comparing a sample of the vectors with all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.clusters import BLOCK as READ
from img2prompt_cache.numerics.clusters import SAMPLE, fit_centroids, nearest_centroids
from img2prompt_cache.numerics.similarity_graph import BLOCK, MAX_EDGES, merge_edges
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
    """
    n = len(vectors)
    rng = np.random.default_rng(seed)
    sample = vectors[np.sort(rng.permutation(n)[:SAMPLE])]
    centroids = fit_centroids(sample, max(1, round(n**0.5)), rng)
    del sample
    drawn = np.sort(rng.permutation(n)[:QUERIES])
    cell = np.empty(n, np.int32)
    for start in range(0, n, READ):
        cell[start : start + READ] = nearest_centroids(vectors[start : start + READ], centroids)
    probes, recall = _choose_probes(vectors, drawn, cell, centroids, threshold)
    searched = np.empty((n, probes), np.int32)
    for start in range(0, n, READ):
        searched[start : start + READ] = _nearest_cells(vectors[start : start + READ], centroids, probes)
    label = np.arange(n)
    waiting: list[tuple[Rows, Rows]] = []
    count = 0
    with stage("near-identical rows", len(centroids)) as advance:
        for inside, around in _neighbourhoods(cell, searched, len(centroids)):
            for left, right in _near_pairs(vectors, inside, around, threshold):
                news = label[left] != label[right]
                waiting.append((left[news], right[news]))
                count += int(news.sum())
                if count > MAX_EDGES:
                    label, waiting, count = merge_edges(label, waiting), [], 0
            advance(1)
    return merge_edges(label, waiting), recall


def _nearest_cells(vectors: F32, centroids: F32, probes: int) -> Cells:
    """Find the cells to search for each vector, in any order."""
    if probes == len(centroids):
        return np.tile(np.arange(probes, dtype=np.int32), (len(vectors), 1))
    products = vectors @ centroids.T
    found: Cells = np.argpartition(products, len(centroids) - probes, axis=1)[:, -probes:].astype(np.int32)
    return found


def _choose_probes(
    vectors: Vectors, drawn: Rows, cell: Cells, centroids: F32, threshold: float
) -> tuple[int, float]:
    """Find how many cells to search, and the share of near pairs that it finds, by comparing some with all.

    A pair is found from either side. Here the side of the drawn vector counts, so a little more is found.
    """
    queries = vectors[drawn]
    order = np.argsort(-(queries @ centroids.T), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    count = np.zeros(len(centroids), np.int64)
    for start in range(0, len(vectors), READ):
        block = vectors[start : start + READ]
        query, other = np.nonzero(queries @ block.T >= threshold)
        apart = drawn[query] != other + start
        query, other = query[apart], other[apart] + start
        count += np.bincount(rank[query, cell[other]], minlength=len(count))
    most = min(MOST_PROBES, len(centroids))
    if not count.sum():
        return min(4, most), 1.0
    found = np.cumsum(count) / count.sum()
    probes = min(int(np.searchsorted(found, TARGET_RECALL)) + 1, most)
    return probes, float(found[probes - 1])


def _neighbourhoods(cell: Cells, searched: Cells, cells: int) -> Iterator[tuple[Rows, Rows]]:
    """For each cell, give the vectors in it and all that search it."""
    order = np.argsort(cell, kind="stable")
    ends = np.searchsorted(cell[order], np.arange(cells + 1))
    flat = searched.ravel()
    by_cell = np.argsort(flat, kind="stable")
    stops = np.searchsorted(flat[by_cell], np.arange(cells + 1))
    for number in range(cells):
        inside = order[ends[number] : ends[number + 1]]
        around = by_cell[stops[number] : stops[number + 1]] // searched.shape[1]
        if len(inside) and len(around):
            yield inside, around


def _near_pairs(
    vectors: Vectors, inside: Rows, around: Rows, threshold: float
) -> Iterator[tuple[Rows, Rows]]:
    """Give the pairs of two sets of vectors that are near, in blocks."""
    for other in range(0, len(around), BLOCK):
        right = around[other : other + BLOCK]
        those = vectors[right]
        for start in range(0, len(inside), BLOCK):
            left = inside[start : start + BLOCK]
            one, two = np.divmod(np.flatnonzero(vectors[left] @ those.T >= threshold), len(right))
            yield left[one], right[two]
