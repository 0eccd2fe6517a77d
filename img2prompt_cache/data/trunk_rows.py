"""Rows of a trunk column, which need not fit into memory, and batches of rows for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.mapped import MappedColumn, MappedViews
from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TrunkRows:
    """Some rows of a trunk column, to be used like an array of features.

    ``rows[index]`` selects some of the rows, as it does of an array, but reads nothing;
    ``numpy.asarray(rows)`` reads them.

    Parameters
    ----------
    trunk : MappedColumn
        Of float32.
    rows : numpy.ndarray, int64, shape (n,)
        Numbers in the column.
    views : MappedViews, optional
        Augmented views of the same rows.
    view : numpy.ndarray, int64, shape (n,), optional
        What to read of each row: 0 for the image itself, v for its view v − 1. If absent, the images.
    """

    def __init__(
        self,
        trunk: MappedColumn,
        rows: NDArray[np.int64],
        views: MappedViews | None = None,
        view: NDArray[np.int64] | None = None,
    ) -> None:
        self._trunk, self._rows, self._views = trunk, rows, views
        self._view = np.zeros(len(rows), np.int64) if view is None else view
        self.column = trunk.column

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that reading gives: (n, …)."""
        return (len(self), *self.column.shape)

    @property
    def views(self) -> int:
        """Number of views of each row, the image itself not counted."""
        return self._views.views if self._views else 0

    def __getitem__(self, index: slice | NDArray[Any]) -> TrunkRows:
        """Select rows; nothing is read."""
        return TrunkRows(self._trunk, self._rows[index], self._views, self._view[index])

    def with_views(self, view: NDArray[np.int64]) -> TrunkRows:
        """Give the same rows, each as one of its views: `view` (n,) of 0…`views`, 0 for the image itself."""
        return TrunkRows(self._trunk, self._rows, self._views, view)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the rows: float32, shape (n, …).

        Raises
        ------
        Img2PromptError
            If a part is not what the manifest says, or a value is not finite.
        """
        plain = self._view == 0
        values = np.empty(self.shape, np.float32)
        values[plain] = self._trunk[self._rows[plain]]
        if self._views and not plain.all():
            number = self._rows * self.views + self._view - 1
            values[~plain] = self._views[number[~plain]]
        # A float64 sum of float32 values cannot overflow, so it is finite exactly when they all are.
        if not np.isfinite(np.sum(values, dtype=np.float64)):
            whole = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
            raise Img2PromptError(
                f"{self.column.folder} or its views hold NaN or infinity in row "
                f"{int(self._rows[~whole][0])}; `verify()` tells whether a part was changed"
            )
        return values if dtype is None else values.astype(dtype, copy=False)


def batches(
    columns: Sequence[MappedColumn | TrunkRows | NDArray[Any]],
    rows: NDArray[np.int64],
    size: int,
    seed: int | None = None,
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Iterate over rows once, batch by batch; a thread reads the next batch while the caller uses this one.

    Parameters
    ----------
    columns : sequence of MappedColumn, TrunkRows or numpy.ndarray
    rows : numpy.ndarray, int64, shape (n,)
        Which rows.
    size : int
        Rows of a batch; the last one may have fewer.
    seed : int, optional
        Seed of a shuffle; without one, the order of `rows`. Give each epoch its own.

    Yields
    ------
    tuple of numpy.ndarray, shape (size, …)
        One array for each column, of its dtype.
    """
    order = rows if seed is None else np.random.default_rng(seed).permutation(rows)

    def read(start: int) -> tuple[NDArray[Any], ...]:
        return tuple(np.asarray(column[order[start : start + size]]) for column in columns)

    with ThreadPoolExecutor(1) as ahead:
        following = None
        for start in range(0, len(order), size):
            reading = following or ahead.submit(read, start)
            following = ahead.submit(read, start + size) if start + size < len(order) else None
            yield reading.result()
