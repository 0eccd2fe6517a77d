"""The linear probe that fine-tuning starts from: ridge on the pooled features of a backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.heads.ridge import Ridge
from img2prompt_cache.numerics.gram import Rows
from img2prompt_cache.numerics.metrics import mean_cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, Targets

CHUNK = 4096
"""Rows of pooled features read at a time."""


class Probes:
    """Ridge solutions on any of some rows, which need not fit into memory.

    Parameters
    ----------
    pooled : numpy.ndarray, float32, shape (n, p)
    y : numpy.ndarray, float32, shape (n, t)
    """

    def __init__(self, pooled: Features, y: Targets) -> None:
        self.pooled, self.y = pooled, y

    def choose_alpha(self, groups: Groups, folds: int, seed: int) -> float:
        """Give the penalty with the best mean cosine on grouped folds of all rows.

        Raises
        ------
        UsageError
            If there are fewer groups than folds.
        """
        fold = k_folds(groups, folds, seed)
        ridge = Ridge(None, folds, seed=seed)
        return float(self._fitted(ridge, np.arange(len(self.y)), fold).alpha_[0])

    def fit(self, rows: NDArray[np.int64], alpha: float) -> Ridge:
        """Fit ridge with a given penalty to some rows."""
        return self._fitted(Ridge(alpha), rows, np.zeros(len(rows), np.int64))

    def loss(self, probe: Ridge, rows: NDArray[np.int64]) -> float:
        """Mean over some rows of 1 − cosine."""
        total = 0.0
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            total += len(some) * (1 - mean_cosine(probe.predict(self.pooled[some]), self.y[some]))
        return total / len(rows)

    def _fitted(self, ridge: Ridge, rows: NDArray[np.int64], fold: NDArray[np.int64]) -> Ridge:
        def chunks() -> Iterator[Rows]:
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                yield Rows(self.pooled[some], self.y[some], fold[start : start + CHUNK])

        return ridge.fit_stream(chunks, len(rows), (self.pooled.shape[1],))
