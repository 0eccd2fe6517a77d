"""Embeddings of rows' prompts as unit vectors, read a few at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.row_blocks import Matrix

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]


class PromptVectors:
    """Unit vectors of some rows: scaled, and read where they are not held, when they are indexed.

    Parameters
    ----------
    values : numpy.ndarray, float32, shape (n, d); or ColumnRows
        Embeddings of any length.
    rows : numpy.ndarray, int64, shape (m,), optional
        Numbers of those that count; all, if absent.
    """

    def __init__(self, values: Matrix, rows: Rows | None = None) -> None:
        self._values, self._rows = values, rows

    def __len__(self) -> int:
        return len(self._values if self._rows is None else self._rows)

    def __getitem__(self, part: slice | NDArray[Any]) -> F32:
        """Read some: float32, shape (k, d).

        Raises
        ------
        Img2PromptError
            If a value is not finite.
        """
        values = np.asarray(self._values[part if self._rows is None else self._rows[part]])
        if not np.isfinite(np.sum(values, dtype=np.float64)):
            raise Img2PromptError(
                "targets hold NaN or infinity; run `verify()` on the cache, or extract them anew"
            )
        return unit(values)

    def raw(self) -> F32:
        """Read all as they are cached, of any length."""
        values: F32 = np.asarray(self._values if self._rows is None else self._values[self._rows])
        return values

    def select(self, rows: Rows) -> PromptVectors:
        """Select some rows; nothing is read."""
        return PromptVectors(self._values, rows if self._rows is None else self._rows[rows])
