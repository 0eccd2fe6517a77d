"""What heads that look up the most similar training rows share: the rows, their index, and its search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.numerics.disk_array import release
from img2prompt_cache.numerics.ivf import Cells, cell_index, fit_cells, hold_back
from img2prompt_cache.numerics.kept_rows import kept_rows
from img2prompt_cache.numerics.kernel_ridge import normalise_blocks
from img2prompt_cache.numerics.neighbour_gains import weigh_blocks
from img2prompt_cache.numerics.neighbours import flat_index, gather, inverse_power, nearest, weighted_sum
from img2prompt_cache.numerics.projected_search import BYTES, ProjectedSearch, fit_projected

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets
    from img2prompt_cache.numerics.neighbour_gains import F64
    from img2prompt_cache.numerics.row_blocks import Matrix

EXACT = 50_000
"""Rows up to which the search is exact; beyond, it is an inverted file (`benchmarks/knn.py`)."""

SEED = 0
"""Seed of the cells; the head has no setting for it."""

ROWS = 1024
"""Rows searched at a time, so that memory does not grow with the number of queries."""


class Neighbours(Head):
    """Average targets of the training rows that are most similar to an image, found by FAISS.

    Similarity is the mean over blocks of their cosines, weighted by `gains_`. Training rows are kept in
    float16. Beyond 50,000 of them the search is approximate; `measured` gives its recall. Either the index
    has the rows themselves, or codes of their projections, which find candidates to compare with the rows.
    """

    @property
    def measured(self) -> dict[str, Any]:
        """The kind of search: exact, or of the nearest cells, with its recall on rows that were held back."""
        projected = self.projected_
        cells = self.cells_ if projected is None else projected.cells
        if cells is None:
            return {"search": "exact"}
        codes = (
            {}
            if projected is None
            else {"dimensions": projected.projection.shape[1], "candidates": projected.candidates}
        )
        return {
            "search": "cells",
            "cells": len(cells.centroids),
            "probes": cells.probes,
            **codes,
            "recall@10": cells.recall,
        }

    def least_memory(self, rows: int) -> int:
        """Say how much an index of the rows takes; see `Head.least_memory`."""
        return 0 if rows <= EXACT else rows * BYTES

    def state(self) -> State:
        """Give the training rows, `vectors` (n, p) float16 and `targets` (n, t), and how rows are scaled.

        Where the search is approximate also its cells: `centroids` (c, p), `cell` (n,), `probes` (1,) and
        `recall` (1,); the index is built of them anew, because one that FAISS wrote cannot be checked. Where
        it is by projections, also the arrays of `ProjectedSearch`.
        """
        state: State = {
            "blocks": self.widths_,
            "mean": self.mean_,
            "scale": self.scale_,
            "gain": self.gains_,
            "vectors": self.vectors_,
            "targets": self.targets_,
        }
        approximate = self.projected_ or self.cells_
        return state if approximate is None else {**state, **approximate.arrays()}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self.vectors_: NDArray[np.float16] = checks.saved_array(state, "vectors", None, None)
        n, width = self.vectors_.shape
        self.n_features_in_ = width
        self.targets_ = checks.saved_array(state, "targets", n, None)
        self.mean_ = checks.saved_array(state, "mean", width)
        self.scale_ = checks.saved_array(state, "scale", width)
        self.widths_ = checks.saved_array(state, "blocks", None)
        if self.widths_.sum() != width:
            raise Img2PromptError(
                f"the saved head's 'blocks' sum to {self.widths_.sum()}, not {width}; fit it again"
            )
        # Until version 0.2 every block counted the same.
        self.gains_: F64 = np.ones(len(self.widths_))
        if "gain" in state:
            self.gains_ = checks.saved_array(state, "gain", len(self.widths_))
        if not (self.gains_ > 0).all():
            raise Img2PromptError(f"the saved head's 'gain' is {self.gains_}, not above 0; fit it again")
        if "projection" in state:
            projected = ProjectedSearch.from_arrays(state)
            self._use(projected.index(self.vectors_), projected=projected)
        else:
            self._index(Cells.from_arrays(state) if "cell" in state else None)
        release(self.vectors_)
        release(self.targets_)
        return self

    def _unscaled(self, X: Features) -> Targets:
        return self._average(X, 1, 0.0)

    def _average(self, X: Features, k: int, power: float) -> Targets:
        """Average the unit targets of the k nearest rows; the length of the mean tells how far they agree."""
        pred = np.empty((len(X), self.targets_.shape[1]), np.float32)
        for start in range(0, len(X), ROWS):
            distances, rows = self._nearest(self._vectors(X[start : start + ROWS]), k)
            weights = inverse_power(distances, power)
            weights /= weights.sum(axis=1, keepdims=True)
            pred[start : start + ROWS] = weighted_sum(weights, *gather(rows, self.targets_))
        return pred

    def _nearest(
        self, queries: Features, k: int, among: NDArray[np.bool_] | None = None
    ) -> tuple[Features, NDArray[np.int64]]:
        """Find the k nearest training rows of unit vectors; see `nearest`."""
        if self.projected_ is None:
            return nearest(self.index_, queries, k, among)
        return self.projected_.nearest(self.index_, self.vectors_, queries, k, among)

    def _vectors(self, X: Features) -> Features:
        units = normalise_blocks((X - self.mean_) / self.scale_, self.widths_)
        return weigh_blocks(units, self.widths_, self.gains_)

    def _index(self, cells: Cells | None) -> None:
        if cells is None:
            self._use(flat_index(self.vectors_.astype(np.float32)))
        else:
            self._use(cell_index(self.vectors_, cells), cells)

    def _use(self, index: Any, cells: Cells | None = None, projected: ProjectedSearch | None = None) -> None:
        self.index_, self.cells_, self.projected_ = index, cells, projected

    def _kept(
        self, values: Matrix, make: Callable[[Features], NDArray[Any]], dtype: DTypeLike
    ) -> NDArray[Any]:
        """Make something of each row: in memory, or on disk where the rows are not in memory either."""
        return kept_rows(make, [values], values.shape[1], dtype, ROWS)

    def _search(self, X: Matrix, groups: Groups, *, by_projections: bool = False) -> None:
        """Build the index of the vectors; row i of `X` is a query that should find vector i."""
        if len(X) <= EXACT:
            self._index(None)
            return
        drawn, held = hold_back(groups, SEED)
        queries = self._vectors(np.asarray(X[drawn]))
        if by_projections:
            projected, index = fit_projected(self.vectors_, queries, held, SEED)
            self._use(index, projected=projected)
        else:
            cells, index = fit_cells(self.vectors_, queries, held, SEED)
            self._use(index, cells)
