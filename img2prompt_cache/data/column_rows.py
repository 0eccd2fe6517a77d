"""Rows of columns that are read when they are used, in the place of an array of features or targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.disk_array import is_mapped, take_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.mapped import MappedColumn

    AnyColumn: TypeAlias = MappedColumn | NDArray[np.float32]


class ColumnRows:
    """Some rows of columns side by side, to be used like a matrix that need not fit into memory.

    ``rows[index]`` selects some of the rows, as it does of an array, but reads nothing;
    ``numpy.asarray(rows)`` reads them.

    Parameters
    ----------
    columns : sequence of MappedColumn or numpy.ndarray
        Of float32, each with a vector for each row. Rows of an array are copied where they are read; those of
        an array in a file are read from it.
    rows : numpy.ndarray, int64, shape (n,)
        Numbers in the columns.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, columns: Sequence[AnyColumn], rows: NDArray[np.int64]) -> None:
        self._parts = tuple(_Part(column, 0, column.shape[1]) for column in columns)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def held(self) -> bool:
        """Whether the columns are arrays in memory, so that nothing is read from a disk."""
        return all(isinstance(part.column, np.ndarray) and not is_mapped(part.column) for part in self._parts)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the array that reading gives: (n, p)."""
        return len(self), sum(part.width for part in self._parts)

    def __getitem__(self, index: slice | NDArray[Any]) -> Self:
        """Select rows; nothing is read."""
        return self._of(self._parts, self._rows[index])

    def select(self, ranges: Sequence[tuple[int, int]]) -> Self:
        """Select values of each row by ranges [start, stop), put side by side in this order; nothing is read.

        Parameters
        ----------
        ranges : sequence of (int, int)
            Of what is side by side now.
        """
        stops = list(accumulate(part.width for part in self._parts))
        return self._of(
            tuple(
                part.cut(max(start - left, 0), min(stop - left, part.width))
                for start, stop in ranges
                for part, left, right in zip(self._parts, [0, *stops], stops, strict=False)
                if start < right and left < stop
            ),
            self._rows,
        )

    def can_precede(self, others: ColumnRows) -> bool:
        """Whether other rows are of the same columns."""
        return [part.source for part in self._parts] == [part.source for part in others._parts]

    def followed_by(self, others: Self) -> Self:
        """Put other rows of the same columns below these; nothing is read.

        Raises
        ------
        ValueError
            If they are of other columns.
        """
        if not self.can_precede(others):
            raise ValueError("rows of other columns cannot follow these")
        return self._of(self._parts, np.concatenate([self._rows, others._rows]))

    def _of(self, parts: tuple[_Part, ...], rows: NDArray[np.int64]) -> Self:
        made = type(self)((), rows)
        made._parts = parts
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the rows: float32, shape (n, p).

        Raises
        ------
        Img2PromptError
            If a part is not what the manifest says, or a value is not finite.
        """
        values = np.empty(self.shape, np.float32)
        left = 0
        for part in self._parts:
            right = left + part.width
            values[:, left:right] = part.read(self._rows)
            left = right
        # A float64 sum of float32 values cannot overflow, so it is finite exactly when they all are.
        if not np.isfinite(np.sum(values, dtype=np.float64)):
            whole = np.isfinite(values).all(axis=1)
            columns = [part.column for part in self._parts]
            folders = [each.column.folder for each in columns if not isinstance(each, np.ndarray)]
            raise Img2PromptError(
                f"{', '.join(folders) or 'an array'}: NaN or infinity in row {int(self._rows[~whole][0])}; "
                "`verify()` tells whether a part was changed"
            )
        return values if dtype is None else values.astype(dtype, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The values [start, stop) of each row of a column."""

    column: AnyColumn
    start: int
    stop: int

    @property
    def width(self) -> int:
        return self.stop - self.start

    @property
    def source(self) -> tuple[Any, ...]:
        """What tells where the values come from: the same for the same column that is mapped twice."""
        column = self.column
        where = id(column) if isinstance(column, np.ndarray) else (column.folder, column.column.folder)
        return where, self.start, self.stop

    def cut(self, start: int, stop: int) -> _Part:
        return _Part(self.column, self.start + start, self.start + stop)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        column = self.column
        found = take_rows(column, rows) if isinstance(column, np.ndarray) else column.read(rows)
        return found[:, self.start : self.stop]
