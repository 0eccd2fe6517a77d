"""Approximate nearest neighbours of vectors that need not be in memory: candidates by projections, re-ranked.

Vectors are projected to their first principal directions (the eigenvectors of their second moment, which
change inner products least), and the projections are stored in 8 bits a value, in the cells of an inverted
file (Jégou, Douze & Schmid, 2011, do the same with product quantisation). A search finds candidates by them,
then compares these with the query by the vectors themselves, which may be memory-mapped. Of n vectors of
width p, n × d bytes are in memory, with d the dimensions of the projections, instead of n × p × 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.disk_array import release, take_rows
from img2prompt_cache.numerics.ivf import (
    TARGET_RECALL,
    Cells,
    cells_for,
    exact_neighbours,
    find_centroids,
    in_chunks,
    probes_for,
    recall_of,
    training_rows,
)
from img2prompt_cache.numerics.neighbours import flat_index, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.ivf import F32

    Codes = NDArray[np.uint8]

DIMENSIONS = 192
"""Of projections, at most: fewer need more candidates, more take longer to search (`benchmarks/scale.py`)."""
BYTES = 2 * (DIMENSIONS + 8)
"""Of memory for each vector: its code, twice, and its number and cell."""
SAMPLE = 16_384
"""Vectors on which the directions and the range of each are found."""
MOST = 1024
"""Candidates of a query, at most."""
PER_NEIGHBOUR = 2
"""Candidates of a query for each neighbour that is asked for, at least."""
GATHERED = 8192
"""Vectors that are compared with queries at a time; it bounds the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class ProjectedSearch:
    """Projections of n unit vectors of width p to d dimensions, in cells.

    Attributes
    ----------
    projection : numpy.ndarray, float32, shape (p, d)
    low, span : numpy.ndarray, float32, shape (d,)
        The value of code 0, and how far that of 255 is from it.
    codes : numpy.ndarray, uint8, shape (n, d)
    cells : Cells
        Of the projections. Their recall is that after the candidates were compared.
    candidates : int
        Number of candidates for each query.

    Raises
    ------
    Img2PromptError
        If the arrays do not fit each other.
    """

    projection: F32
    low: F32
    span: F32
    codes: Codes
    cells: Cells
    candidates: int

    def __post_init__(self) -> None:
        """Check the arrays, which may come from a file: FAISS trusts what it is given."""
        d = self.projection.shape[-1] if self.projection.ndim == 2 else 0
        whole = (
            d > 0
            and self.low.shape == self.span.shape == (d,)
            and self.codes.shape == (len(self.cells.cell), d)
            and self.codes.dtype == np.uint8
            and self.cells.centroids.shape[1] == d
            and 1 <= self.candidates <= MOST
            and all(
                each.dtype == np.float32 and bool(np.isfinite(each).all())
                for each in (self.projection, self.low, self.span)
            )
        )
        if not whole:
            raise Img2PromptError(
                f"the index is damaged: projection {self.projection.dtype} {self.projection.shape}, codes "
                f"{self.codes.dtype} {self.codes.shape}, {self.candidates} candidates; fit it again"
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `projection`, `low`, `span`, `codes`, `candidates` (1,) and the arrays of the cells."""
        return {
            "projection": self.projection,
            "low": self.low,
            "span": self.span,
            "codes": self.codes,
            "candidates": np.array([self.candidates]),
            **self.cells.arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make it from what `arrays` returned.

        Raises
        ------
        Img2PromptError
            If an array is missing, or they do not fit each other.
        """
        try:
            (candidates,) = arrays["candidates"].tolist()
            projection, low, span, codes = (arrays[name] for name in ("projection", "low", "span", "codes"))
            return cls(projection, low, span, codes, Cells.from_arrays(arrays), int(candidates))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise Img2PromptError(f"the index is damaged: {error!r}; fit it again") from None

    def index(self, vectors: NDArray[Any]) -> Any:
        """Build the FAISS index of the projections, which has a copy of the codes.

        Parameters
        ----------
        vectors : numpy.ndarray, shape (n, p)
            What was projected; only its shape is looked at.

        Returns
        -------
        faiss.IndexIVFScalarQuantizer
            By inner product; it takes d + 8 bytes for each vector.

        Raises
        ------
        Img2PromptError
            If the projections are of other vectors.
        """
        import faiss

        n, d = self.codes.shape
        if vectors.shape != (n, len(self.projection)):
            raise Img2PromptError(
                f"the index is of {n} vectors of {len(self.projection)} values, not of the "
                f"{vectors.shape[0]} of {vectors.shape[1]} that it lies beside; fit it again"
            )
        coarse = flat_index(self.cells.centroids)
        count, bits = len(self.cells.centroids), faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(coarse, d, count, bits, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False
        faiss.copy_array_to_vector(np.concatenate([self.low, self.span]), index.sq.trained)
        index.is_trained = True
        index.nprobe = self.cells.probes
        lists: Any = index.invlists
        order = np.argsort(self.cells.cell, kind="stable")
        stops = np.searchsorted(self.cells.cell[order], np.arange(count), side="right").tolist()
        for number, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
            if start < stop:
                rows = order[start:stop]
                codes = np.ascontiguousarray(self.codes[rows])
                lists.add_entries(number, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(codes))
        index.ntotal = n
        release(self.codes)
        return index

    def nearest(
        self,
        index: Any,
        vectors: NDArray[Any],
        queries: F32,
        k: int,
        among: NDArray[np.bool_] | None = None,
    ) -> tuple[F32, NDArray[np.int64]]:
        """Find the k nearest vectors for each query; see `neighbours.nearest`.

        Parameters
        ----------
        index : faiss.Index
            As `index` builds it.
        vectors : numpy.ndarray, float16 or float32, shape (n, p)
            What was projected; may be memory-mapped.
        queries : numpy.ndarray, float32, shape (m, p)
        k : int
        among : numpy.ndarray, bool, shape (n,), optional

        Returns
        -------
        distances : numpy.ndarray, float32, shape (m, k)
            Those of the vectors, not of their projections.
        rows : numpy.ndarray, int64, shape (m, k)
        """
        k = min(k, index.ntotal if among is None else int(among.sum()))
        candidates = max(self.candidates, PER_NEIGHBOUR * k)
        _, rows = nearest(index, queries @ self.projection, candidates, among, least=k)
        return closest(vectors, queries, rows, k)


def closest(
    vectors: NDArray[Any], queries: F32, candidates: NDArray[np.int64], k: int
) -> tuple[F32, NDArray[np.int64]]:
    """Find the k nearest of some candidates for each query.

    Parameters
    ----------
    vectors : numpy.ndarray, float16 or float32, shape (n, p)
        Unit norm; may be memory-mapped.
    queries : numpy.ndarray, float32, shape (m, p)
        Unit vectors.
    candidates : numpy.ndarray, int64, shape (m, c)
        Rows of the vectors; −1 for none, of which there are at most c − k.
    k : int

    Returns
    -------
    distances : numpy.ndarray, float32, shape (m, k)
        Cosine distances, ascending.
    rows : numpy.ndarray, int64, shape (m, k)
    """
    m, count = candidates.shape
    distances, rows = np.empty((m, k), np.float32), np.empty((m, k), np.int64)
    step = max(1, GATHERED // count)
    for start in range(0, m, step):
        some = slice(start, start + step)
        among = candidates[some]
        gathered = take_rows(vectors, among.ravel()).astype(np.float32, copy=False).reshape(*among.shape, -1)
        similarity = np.matmul(gathered, queries[some, :, None])[:, :, 0]
        similarity[among < 0] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        distances[some] = 1.0 - np.take_along_axis(similarity, order, axis=1)
        rows[some] = np.take_along_axis(among, order, axis=1)
    return distances, rows


def fit_projected(
    vectors: NDArray[Any],
    queries: F32,
    held: NDArray[np.bool_],
    seed: int,
    target_recall: float = TARGET_RECALL,
) -> tuple[ProjectedSearch, Any]:
    """Project vectors, partition the projections, and find how far to search for the target recall.

    Parameters
    ----------
    vectors : numpy.ndarray, float16 or float32, shape (n, p)
        Unit norm; may be memory-mapped.
    queries : numpy.ndarray, float32, shape (m, p)
        Unit vectors, such as will be searched for later.
    held : numpy.ndarray, bool, shape (n,)
        Vectors left out when recall is measured.
    seed : int
        Seed of the sample and of k-means.
    target_recall : float
        The recall to reach. It is less where all candidates that there may be are too few for it.

    Returns
    -------
    search : ProjectedSearch
    index : faiss.Index
        As its `index` builds it.
    """
    n, count = len(vectors), cells_for(len(vectors))
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[:SAMPLE])
    sample = take_rows(vectors, drawn).astype(np.float32)
    projection = _directions(sample)
    sample = sample @ projection
    low = sample.min(axis=0)
    span = np.maximum(sample.max(axis=0) - low, np.float32(1e-6))
    codes = np.concatenate([_encode(chunk @ projection, low, span) for _, chunk in in_chunks(vectors)])
    training = _decode(codes[training_rows(n, seed)], low, span)
    centroids = find_centroids(training, count, seed)
    del sample, training
    coarse = flat_index(centroids)
    cell = np.concatenate(
        [nearest(coarse, chunk, 1)[1][:, 0] for chunk in _decoded(codes, low, span)]
    ).astype(np.int32)
    similarity, true = exact_neighbours(vectors, queries, ~held)
    small = queries @ projection
    # Half of what may be missed is missed in the cells, the other half among the candidates.
    share = (1 + target_recall) / 2
    probes = probes_for(nearest(coarse, small, count)[1], cell[true], share)
    most = min(MOST, int((~held).sum()))
    found = ProjectedSearch(projection, low, span, codes, Cells(centroids, cell, probes, 0.0), most)
    index = found.index(vectors)
    while True:
        _, rows = nearest(index, small, most, ~held, least=true.shape[1])
        missing = np.where((rows[:, :, None] == true[:, None, :]).any(axis=1), 0, most)
        place = (rows[:, :, None] == true[:, None, :]).argmax(axis=1) + missing
        wanted = int(np.sort(place, axis=None)[int(np.ceil(share * place.size)) - 1]) + 1
        candidates = min(most, max(wanted, PER_NEIGHBOUR * true.shape[1]))
        distances, near = closest(vectors, queries, rows[:, :candidates], true.shape[1])
        recall = recall_of(distances, near, 1.0 - similarity, true)
        if recall >= target_recall or index.nprobe == count:
            cells = replace(found.cells, probes=index.nprobe, recall=recall)
            return replace(found, cells=cells, candidates=candidates), index
        index.nprobe = min(count, index.nprobe + 1 + index.nprobe // 10)


def _directions(sample: F32) -> F32:
    """Find the principal directions of vectors: shape (p, d), d at most `DIMENSIONS`."""
    from scipy import linalg

    p = sample.shape[1]
    moment = (sample.T @ sample).astype(np.float64)
    _, vectors = linalg.eigh(moment, subset_by_index=[max(0, p - DIMENSIONS), p - 1])
    return np.ascontiguousarray(vectors[:, ::-1], np.float32)


def _encode(values: F32, low: F32, span: F32) -> Codes:
    scaled = (values - low) * (255 / span)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def _decode(codes: Codes, low: F32, span: F32) -> F32:
    """Restore values as FAISS does: each is in the middle of its step."""
    values: F32 = low + (codes + np.float32(0.5)) * (span / np.float32(255))
    return values


def _decoded(codes: Codes, low: F32, span: F32) -> Iterator[F32]:
    for start in range(0, len(codes), SAMPLE):
        yield _decode(codes[start : start + SAMPLE], low, span)
