"""Approximate nearest neighbours by an inverted file (IVF), stored as plain arrays.

An inverted file (Sivic & Zisserman, 2003; `IndexIVF` of FAISS) partitions the vectors into cells around
k-means centroids, each vector in the cell of its nearest centroid. A query is compared only with the vectors
of the cells nearest to it. The share of neighbours that this finds, its recall, is measured on held-out
vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.disk_array import release
from img2prompt_cache.numerics.metrics import TIE
from img2prompt_cache.numerics.neighbours import flat_index, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

NEIGHBOURS = 10
"""Number of nearest neighbours over which recall is measured."""

TARGET_RECALL = 0.995
"""Recall to reach: more than the 0.99 promised, because other queries may differ."""

QUERIES = 500
"""Number of held-out vectors on which recall is measured."""

PER_CELL = 48
"""Training vectors of k-means for each cell: FAISS warns below 39, and more change little."""

ITERATIONS = 8
CHUNK = 16384
"""Vectors converted to float32 at a time; it bounds the memory, whatever their number."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """A partition of n unit vectors of width d into c cells.

    Attributes
    ----------
    centroids : numpy.ndarray, float32, shape (c, d)
    cell : numpy.ndarray, int32, shape (n,)
        The cell of each vector.
    probes : int
        Number of cells that are searched for each query.
    recall : float
        Share of the 10 nearest neighbours that were found for held-out vectors.

    Raises
    ------
    Img2PromptError
        If the arrays do not fit each other.
    """

    centroids: F32
    cell: NDArray[np.int32]
    probes: int
    recall: float

    def __post_init__(self) -> None:
        """Check the arrays, which may come from a file: FAISS reads out of bounds for a cell out of range."""
        count = len(self.centroids)
        whole = (
            (self.centroids.ndim, self.cell.ndim) == (2, 1)
            and self.centroids.dtype == np.float32
            and self.cell.dtype == np.int32
            and bool(np.isfinite(self.centroids).all())
            and 1 <= self.probes <= count
            and len(self.cell) > 0
            and 0 <= self.cell.min() <= self.cell.max() < count
        )
        if not whole:
            raise Img2PromptError(
                f"the index is damaged: {self.probes} probes, centroids {self.centroids.dtype} "
                f"{self.centroids.shape}, cells {self.cell.dtype} {self.cell.shape}; fit it again"
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `centroids`, `cell`, `probes` (1,) and `recall` (1,), to be saved with the vectors."""
        return {
            "centroids": self.centroids,
            "cell": self.cell,
            "probes": np.array([self.probes]),
            "recall": np.array([self.recall]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make cells from what `arrays` returned.

        Raises
        ------
        Img2PromptError
            If an array is missing, or they do not fit each other.
        """
        try:
            (probes,), (recall,) = arrays["probes"].tolist(), arrays["recall"].tolist()
            return cls(arrays["centroids"], arrays["cell"], int(probes), float(recall))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise Img2PromptError(f"the index is damaged: {error!r}; fit it again") from None


def hold_back(groups: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw vectors as queries to measure recall, and hold out their whole groups.

    Queries after training are new vectors, whose near-duplicates are not in the index; held-out groups make
    the measurement as hard.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (n,)
    seed : int

    Returns
    -------
    drawn : numpy.ndarray, int64, shape (min(500, n // 2),)
        Ascending.
    held : numpy.ndarray, bool, shape (n,)
        The drawn vectors and the rest of their groups; only the drawn ones, if that would be more than half
        of all vectors.
    """
    n = len(groups)
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[: min(QUERIES, n // 2)])
    held = np.isin(groups, groups[drawn])
    if 2 * held.sum() > n:
        held = np.isin(np.arange(n), drawn)
    return drawn, held


def fit_cells(
    vectors: NDArray[Any],
    queries: F32,
    held: NDArray[np.bool_],
    seed: int,
    target_recall: float = TARGET_RECALL,
) -> tuple[Cells, Any]:
    """Partition vectors into √n cells, and find how many cells to search for the target recall.

    Parameters
    ----------
    vectors : numpy.ndarray, float16 or float32, shape (n, d)
        Unit norm; may be memory-mapped.
    queries : numpy.ndarray, float32, shape (m, d)
        Unit vectors, such as will be searched for later.
    held : numpy.ndarray, bool, shape (n,)
        Vectors left out when recall is measured.
    seed : int
        Seed of k-means.
    target_recall : float
        The recall to reach.

    Returns
    -------
    cells : Cells
    index : faiss.Index
        As `cell_index` builds it.
    """
    count = cells_for(len(vectors))
    centroids = find_centroids(vectors[training_rows(len(vectors), seed)], count, seed)
    coarse = flat_index(centroids)
    cell = np.concatenate([nearest(coarse, chunk, 1)[1][:, 0] for _, chunk in in_chunks(vectors)]).astype(
        np.int32
    )
    similarity, true = exact_neighbours(vectors, queries, ~held)
    cells = Cells(
        centroids, cell, probes_for(nearest(coarse, queries, count)[1], cell[true], target_recall), 0.0
    )
    index = cell_index(vectors, cells)
    while True:
        distances, found = nearest(index, queries, true.shape[1], among=~held)
        recall = recall_of(distances, found, 1.0 - similarity, true)
        if recall >= target_recall or index.nprobe == count:
            return replace(cells, probes=index.nprobe, recall=recall), index
        # Vectors that become equal in float16 can swap places, so a few more cells may be needed.
        index.nprobe = min(count, index.nprobe + 1 + index.nprobe // 10)


def cell_index(vectors: NDArray[Any], cells: Cells) -> Any:
    """Build the FAISS index of vectors whose cells are known; it copies them in float16.

    Parameters
    ----------
    vectors : numpy.ndarray, float16 or float32, shape (n, d)
        Unit norm; may be memory-mapped. Float16 values are kept as they are.
    cells : Cells

    Returns
    -------
    faiss.IndexIVFScalarQuantizer
        By inner product; it takes d × 2 + 8 bytes for each vector.

    Raises
    ------
    Img2PromptError
        If the cells belong to other vectors.
    """
    import faiss

    n, width = vectors.shape
    if (len(cells.cell), cells.centroids.shape[1]) != (n, width):
        raise Img2PromptError(
            f"the index is of {len(cells.cell)} vectors of {cells.centroids.shape[1]} values, "
            f"not of the {n} of {width} that it lies beside; fit it again"
        )
    coarse = flat_index(cells.centroids)
    half, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(coarse, width, len(cells.centroids), half, metric)
    index.by_residual = False
    index.is_trained = True
    index.nprobe = cells.probes
    for start, chunk in in_chunks(vectors):
        rows = np.arange(start, start + len(chunk))
        where = cells.cell[rows].astype(np.int64)
        index.add_core(len(chunk), *(faiss.swig_ptr(array) for array in (chunk, rows, where)))
    return index


def recall_of(distances: F32, found: NDArray[np.int64], best: F32, true: NDArray[np.int64]) -> float:
    """Compute the share of the true neighbours that were found.

    Another vector that is as near as the last true neighbour counts as found, too.

    Parameters
    ----------
    distances, found : numpy.ndarray, shape (m, k)
        Result of the search.
    best, true : numpy.ndarray, shape (m, k)
        Distances and rows of an exact search.
    """
    among = (found[:, :, None] == true[:, None, :]).any(axis=2)
    return float((among | (distances <= best[:, -1:] + TIE)).mean())


def cells_for(n: int) -> int:
    """Say into how many cells n vectors are divided."""
    return max(1, round(math.sqrt(n)))


def training_rows(n: int, seed: int) -> NDArray[np.int64]:
    """Draw the vectors, ascending, on which the centroids of n vectors are found."""
    return np.sort(np.random.default_rng(seed).permutation(n)[: PER_CELL * cells_for(n)])


def find_centroids(sample: NDArray[Any], count: int, seed: int) -> F32:
    """Find unit centroids by spherical k-means.

    Parameters
    ----------
    sample : numpy.ndarray, shape (m, d)
    count, seed : int

    Returns
    -------
    numpy.ndarray, float32, shape (count, d)
    """
    import faiss

    means = faiss.Kmeans(
        sample.shape[1], count, niter=ITERATIONS, spherical=True, seed=seed, min_points_per_centroid=1,
        max_points_per_centroid=PER_CELL,
    )  # fmt: skip
    means.train(sample.astype(np.float32))
    return np.asarray(means.centroids, np.float32)


def probes_for(order: NDArray[np.int64], wanted: NDArray[np.int32], target_recall: float) -> int:
    """Find how many cells must be searched to reach a share of the true neighbours.

    Parameters
    ----------
    order : numpy.ndarray, int64, shape (m, c)
        All cells for each query, nearest first.
    wanted : numpy.ndarray, int32, shape (m, k)
        Cells of its true neighbours.
    target_recall : float
        The share to reach.
    """
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    ranks = np.sort(np.take_along_axis(rank, wanted.astype(np.int64), axis=1), axis=None)
    return int(ranks[int(np.ceil(target_recall * len(ranks))) - 1]) + 1


def exact_neighbours(
    vectors: NDArray[Any], queries: F32, known: NDArray[np.bool_]
) -> tuple[F32, NDArray[np.int64]]:
    """Find the nearest known vectors of each query, best first: cosines and rows, both (m, 10)."""
    import faiss

    best = faiss.ResultHeap(len(queries), min(NEIGHBOURS, int(known.sum())), keep_max=True)
    for start, chunk in in_chunks(vectors):
        rows = np.flatnonzero(known[start : start + len(chunk)])
        if len(rows):
            similarity, at = faiss.knn(
                queries, chunk[rows], min(best.k, len(rows)), metric=faiss.METRIC_INNER_PRODUCT
            )
            best.add_result(similarity, start + rows[at])
    best.finalize()
    return best.D, best.I


def in_chunks(vectors: NDArray[Any]) -> Iterator[tuple[int, F32]]:
    """Iterate over vectors as float32, some at a time: the number of the first, and the values."""
    for start in range(0, len(vectors), CHUNK):
        yield start, np.ascontiguousarray(vectors[start : start + CHUNK], np.float32)
        release(vectors)
