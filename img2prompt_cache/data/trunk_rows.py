"""Rows of a trunk column that need not fit into memory: indexing selects them, `numpy.asarray` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.mapped import MappedColumn, MappedViews
from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TrunkRows:
    """Some rows of a trunk column, in the place of an array of features.

    ``rows[index]`` is another selection, as with an array, and reads nothing; ``numpy.asarray(rows)`` reads.

    Parameters
    ----------
    trunk : MappedColumn
        Of float32.
    rows : numpy.ndarray, int64, shape (n,)
        Numbers in the column.
    views : MappedViews, optional
        Augmented views of the same rows.
    shots : numpy.ndarray, int64, shape (n,), optional
        As what each row is read: 0 for the image itself, v for its view v − 1. All themselves if absent.
    """

    def __init__(
        self,
        trunk: MappedColumn,
        rows: NDArray[np.int64],
        views: MappedViews | None = None,
        shots: NDArray[np.int64] | None = None,
    ) -> None:
        self._trunk, self._rows, self._views = trunk, rows, views
        self._shots = np.zeros(len(rows), np.int64) if shots is None else shots
        self.column = trunk.column

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what reading gives: (n, …)."""
        return (len(self), *self.column.shape)

    @property
    def views(self) -> int:
        """How many views of each row there are besides the image itself."""
        return self._views.views if self._views else 0

    def __getitem__(self, index: slice | NDArray[Any]) -> TrunkRows:
        """Select rows; nothing is read."""
        return TrunkRows(self._trunk, self._rows[index], self._views, self._shots[index])

    def seen(self, shots: NDArray[np.int64]) -> TrunkRows:
        """Give the same rows, each as one of its views: `shots` (n,) of 0…`views`, 0 the image itself."""
        return TrunkRows(self._trunk, self._rows, self._views, shots)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the rows: float32, shape (n, …).

        Raises
        ------
        Img2PromptError
            If a part is not what the manifest says, or a value is not finite.
        """
        plain = self._shots == 0
        values = np.empty(self.shape, np.float32)
        values[plain] = self._trunk[self._rows[plain]]
        if self._views and not plain.all():
            number = self._rows * self.views + self._shots - 1
            values[~plain] = self._views[number[~plain]]
        # A float64 sum of float32 values cannot overflow, so it is finite exactly when they all are.
        if not np.isfinite(np.sum(values, dtype=np.float64)):
            whole = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
            raise Img2PromptError(
                f"{self.column.folder} or its views hold NaN or infinity in row "
                f"{int(self._rows[~whole][0])}; `img2prompt-cache verify` tells whether a part was changed"
            )
        return values if dtype is None else values.astype(dtype, copy=False)
