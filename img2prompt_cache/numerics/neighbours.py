"""Nearest neighbours by cosine similarity, and sums weighted by distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.numerics.disk_array import take_rows
from img2prompt_cache.numerics.metrics import lengths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

STEP = 256
"""Rows whose similarities are sorted at a time."""

FLOOR = 1e-6
"""Cosine distances below this are rounding errors between equal vectors."""


def flat_index(vectors: F32) -> Any:
    """Build an exact FAISS index of unit vectors.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)

    Returns
    -------
    faiss.IndexFlatIP
    """
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index


def nearest(
    index: Any, queries: F32, k: int, among: NDArray[np.bool_] | None = None, *, least: int | None = None
) -> tuple[F32, NDArray[np.int64]]:
    """Find the k nearest vectors of an index for each query.

    Parameters
    ----------
    index : faiss.Index
        Over n unit vectors, by inner product. An inverted file (IVF) may miss some of the nearest, but always
        returns k vectors, or `least`.
    queries : numpy.ndarray, float32, shape (m, d)
        Unit vectors.
    k : int
        Number of neighbours, at most the number of vectors.
    among : numpy.ndarray, bool, shape (n,), optional
        The vectors to search; all, if absent.
    least : int, optional
        So many must be found by an inverted file, with −1 for the rest: more cells are searched only where
        there are fewer. k, if absent.

    Returns
    -------
    distances : numpy.ndarray, float32, shape (m, k)
        Cosine distances, 1 − cosine, ascending.
    rows : numpy.ndarray, int64, shape (m, k)
    """
    import faiss

    queries = np.ascontiguousarray(queries, np.float32)
    k = min(k, index.ntotal if among is None else int(among.sum()))
    options: dict[str, Any] = {}
    if among is not None:
        bits = np.packbits(among, bitorder="little")
        options["sel"] = faiss.IDSelectorBitmap(len(among), faiss.swig_ptr(bits))
    if not isinstance(index, faiss.IndexIVF):
        similarity, rows = index.search(queries, k, params=faiss.SearchParameters(**options))
        return 1.0 - similarity, rows
    cells: Any = faiss.SearchParametersIVF  # its keyword arguments have no types
    similarity, rows = index.search(queries, k, params=cells(nprobe=index.nprobe, **options))
    short = np.flatnonzero(rows[:, (k if least is None else min(least, k)) - 1] < 0)
    if len(short):  # the cells searched contain too few vectors
        every = cells(nprobe=index.nlist, **options)
        similarity[short], rows[short] = index.search(queries[short], k, params=every)
    return 1.0 - similarity, rows


def inverse_power(distances: F32, power: float) -> NDArray[np.float64]:
    """Compute weights proportional to 1/distance**power; that of the nearest neighbour is 1.

    Distances below `FLOOR` count as `FLOOR`, so identical vectors have finite weights and share nearly all of
    the total.

    Parameters
    ----------
    distances : numpy.ndarray, shape (m, k)
        Ascending along each row.
    power : float
        With 0, all neighbours have the same weight.

    Returns
    -------
    numpy.ndarray, float64, shape (m, k), in 0…1
    """
    floored = np.maximum(distances.astype(np.float64), FLOOR)
    weights: NDArray[np.float64] = (floored[:, :1] / floored) ** power
    return weights


def weighted_sum(weights: NDArray[np.float64], rows: NDArray[np.int64], values: F32) -> F32:
    """Compute the weighted sum of the values of each query's neighbours.

    Parameters
    ----------
    weights, rows : numpy.ndarray, shape (m, k)
    values : numpy.ndarray, float32, shape (n, t)

    Returns
    -------
    numpy.ndarray, float32, shape (m, t)
    """
    from scipy.sparse import csr_array

    m, k = rows.shape
    table = csr_array(
        (weights.astype(np.float32).ravel(), rows.ravel(), np.arange(0, m * k + 1, k)), shape=(m, len(values))
    )
    total: F32 = table @ values
    return total


def gather(rows: NDArray[np.int64], values: NDArray[Any]) -> tuple[NDArray[np.int64], F32]:
    """Read the values of neighbours, each row once.

    Parameters
    ----------
    rows : numpy.ndarray, int64, shape (m, k)
    values : numpy.ndarray, float16 or float32, shape (n, t)
        May be memory-mapped.

    Returns
    -------
    rows : numpy.ndarray, int64, shape (m, k)
        Where each neighbour is in `values`.
    values : numpy.ndarray, float32, shape (u, t)
    """
    used, place = np.unique(rows, return_inverse=True)
    found = take_rows(values, used).astype(np.float32, copy=False)
    return place.reshape(rows.shape), found


def nearest_agreement(similarities: F32, values: NDArray[Any], k: int) -> NDArray[np.float64]:
    """Compute how far the values of the k most similar rows agree: the length of their weighted mean.

    Parameters
    ----------
    similarities : numpy.ndarray, float32, shape (m, n)
        At least 0; they are the weights. Where all of the nearest are 0, the mean is 0.
    values : numpy.ndarray, float16 or float32, shape (n, t)
        Unit vectors.
    k : int
        Cut to n where it is larger.

    Returns
    -------
    numpy.ndarray, float64, shape (m,), in 0…1
        1 where the values are the same.
    """
    k = min(k, len(values))
    found = np.empty(len(similarities))
    for start in range(0, len(similarities), STEP):
        some = similarities[start : start + STEP]
        rows = np.argpartition(some, len(values) - k, axis=1)[:, len(values) - k :]
        weights = np.take_along_axis(some, rows, axis=1)
        total = np.einsum("ij,ijt->it", weights, values[rows].astype(np.float32))
        weight = np.maximum(weights.sum(axis=1, dtype=np.float64), np.finfo(np.float64).tiny)
        found[start : start + STEP] = lengths(total) / weight
    return np.minimum(found, 1.0)
