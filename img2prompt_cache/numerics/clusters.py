"""Clusters of unit vectors by k-means on two levels: near-linear in their number, and the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.similarity_graph import Vectors

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

PER_CLUSTER = 100
"""Vectors of a cluster on average: 20,000 rows are 200 clusters, enough for an interval by bootstrap."""
MOST = 16384
"""Number of clusters at most: of more than 1.6 million vectors, clusters are larger."""
SAMPLE = 131072
"""Vectors from which the centroids are computed."""
ITERATIONS = 8
BLOCK = 16384
"""Vectors read at a time."""
CLOSE = 1e-5
"""Similarities that differ by less are computed again in float64: float32 rounds with the size of a block."""


def cluster_vectors(vectors: Vectors, seed: int, count: int | None = None) -> Rows:
    """Label unit vectors by the nearest centroid.

    Spherical k-means (Dhillon & Modha, 2001, Machine Learning) of a sample on two levels: √k coarse clusters,
    each of which is divided into its share of k fine ones. So n vectors take n·√k comparisons. The result
    depends on the vectors and the seed, not on the sizes of blocks or the number of threads.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)
        Or an object whose rows and slices are such arrays.
    seed : int
    count : int, optional
        k, the number of clusters; some may turn out empty. One for each `PER_CLUSTER` vectors, and at most
        `MOST`, if absent.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        0…k−1.
    """
    n = len(vectors)
    count = min(MOST, round(n / PER_CLUSTER)) if count is None else count
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(n)[:SAMPLE])
    sample = np.empty((len(drawn), vectors[:1].shape[1]), np.float32)
    for start in range(0, len(drawn), BLOCK):
        sample[start : start + BLOCK] = vectors[drawn[start : start + BLOCK]]
    coarse = fit_centroids(sample, max(1, round(count**0.5)), rng)
    cell = nearest_centroids(sample, coarse)
    fine = []
    for number in range(len(coarse)):
        inside = sample[cell == number]
        fine.append(fit_centroids(inside, max(1, round(count * len(inside) / len(sample))), rng))
    del sample
    first = np.cumsum([0, *(len(each) for each in fine)])
    label = np.empty(n, np.int64)
    for start in range(0, n, BLOCK):
        block = vectors[start : start + BLOCK]
        cell = nearest_centroids(block, coarse)
        for number in np.unique(cell).tolist():
            rows = np.flatnonzero(cell == number)
            label[start + rows] = first[number]
            if len(fine[number]) > 1:
                label[start + rows] += nearest_centroids(block[rows], fine[number])
    return label


def nearest_centroids(vectors: F32, centroids: F32) -> Rows:
    """Find the centroid with the largest inner product for each vector; the first of equal ones.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)
    centroids : numpy.ndarray, float32, shape (k, d)

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
    """
    products = vectors @ centroids.T
    best: Rows = np.argmax(products, axis=1)
    top = np.take_along_axis(products, best[:, None], axis=1)
    close = np.flatnonzero(np.count_nonzero(products >= top - np.float32(CLOSE), axis=1) > 1)
    if len(close):
        exact = np.asarray(vectors[close], np.float64) @ centroids.T.astype(np.float64)
        # Equal centroids have equal products but for the last bits.
        best[close] = np.argmax(exact >= exact.max(axis=1, keepdims=True) - 1e-12, axis=1)
    return best


def fit_centroids(sample: F32, count: int, rng: np.random.Generator) -> F32:
    """Compute at most `count` centroids of a sample (m, d); none moves that has no vector."""
    from scipy.sparse import csr_array

    m = len(sample)
    if m == 0:
        return np.zeros((1, sample.shape[1]), np.float32)
    centroids: F32 = sample[np.sort(rng.permutation(m)[:count])]
    if len(centroids) == 1:
        return unit(sample.sum(axis=0, keepdims=True, dtype=np.float64))
    ones = np.ones(m, np.float32)
    for _ in range(ITERATIONS):
        cell = np.concatenate(
            [nearest_centroids(sample[start : start + BLOCK], centroids) for start in range(0, m, BLOCK)]
        )
        # A product with a sparse matrix adds up row after row, whatever the number of threads.
        total = csr_array((ones, (cell, np.arange(m))), shape=(len(centroids), m)) @ sample
        filled = np.bincount(cell, minlength=len(centroids)) > 0
        centroids = np.where(filled[:, None], unit(total), centroids)
    return centroids
