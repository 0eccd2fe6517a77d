"""Rows of columns that are read when they are used, in the place of an array of features or targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.mapped import MappedColumn


class ColumnRows:
    """Some rows of columns side by side, to be used like a matrix that need not fit into memory.

    ``rows[index]`` selects some of the rows, as it does of an array, but reads nothing;
    ``numpy.asarray(rows)`` reads them.

    Parameters
    ----------
    columns : sequence of MappedColumn or numpy.ndarray
        Of float32, each with a vector for each row. Rows of an array are copied where they are read.
    rows : numpy.ndarray, int64, shape (n,)
        Numbers in the columns.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(
        self, columns: Sequence[MappedColumn | NDArray[np.float32]], rows: NDArray[np.int64]
    ) -> None:
        self._columns, self._rows = tuple(columns), rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def held(self) -> bool:
        """Whether the columns are arrays, so that nothing is read from a disk."""
        return all(isinstance(column, np.ndarray) for column in self._columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the array that reading gives: (n, p)."""
        return len(self), sum(column.shape[1] for column in self._columns)

    def __getitem__(self, index: slice | NDArray[Any]) -> ColumnRows:
        """Select rows; nothing is read."""
        return ColumnRows(self._columns, self._rows[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the rows: float32, shape (n, p).

        Raises
        ------
        Img2PromptError
            If a part is not what the manifest says, or a value is not finite.
        """
        values = np.empty(self.shape, np.float32)
        left = 0
        for column in self._columns:
            right = left + column.shape[1]
            values[:, left:right] = (
                column[self._rows] if isinstance(column, np.ndarray) else column.read(self._rows)
            )
            left = right
        # A float64 sum of float32 values cannot overflow, so it is finite exactly when they all are.
        if not np.isfinite(np.sum(values, dtype=np.float64)):
            whole = np.isfinite(values).all(axis=1)
            folders = [each.column.folder for each in self._columns if not isinstance(each, np.ndarray)]
            raise Img2PromptError(
                f"{', '.join(folders) or 'an array'}: NaN or infinity in row {int(self._rows[~whole][0])}; "
                "`verify()` tells whether a part was changed"
            )
        return values if dtype is None else values.astype(dtype, copy=False)
