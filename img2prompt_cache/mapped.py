"""A numeric column as memory maps of its parts: any rows, without reading the rest."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.manifest import Column
from img2prompt_cache.parts import map_values
from img2prompt_cache.quantise import restore

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_MAPS = 256
"""Maps of a column kept open; each holds a file descriptor, of which a process has about a thousand."""


class MappedColumn:
    """Rows of a numeric column by number, read from the disk when they are asked for.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder.
    column : Column
        With the parts that rows will be asked of.
    dtype : str
        What rows are given as: ``"float32"``, or ``"float16"`` where they go to a GPU or stay in memory.
    """

    def __init__(self, folder: Path, column: Column, dtype: str = "float32") -> None:
        self.folder, self.column, self.dtype = folder, column, np.dtype(dtype)
        self._stops = np.array([part.stop for part in column.parts], np.int64)
        self._map = lru_cache(MOST_MAPS)(self._open)

    def __len__(self) -> int:
        return self.column.rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole column: (rows, …)."""
        return (self.column.rows, *self.column.shape)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read rows.

        Parameters
        ----------
        rows : numpy.ndarray, int64, shape (n,)
            Row numbers in any order, repeats allowed.

        Returns
        -------
        numpy.ndarray, of the chosen dtype, shape (n, …)
            Values stored in int8 are restored by their scale.

        Raises
        ------
        IndexError
            If there is no such row.
        Img2PromptError
            If a part is not what the manifest says.
        """
        out = np.empty((len(rows), *self.column.shape), self.dtype)
        if not len(rows):
            return out
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        # Ascending reads are what a disk does best.
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        ends = np.searchsorted(ascending, self._stops).tolist()
        for number, (low, high) in enumerate(zip([0, *ends], ends, strict=False)):
            if low < high:
                within = _run(ascending[low:high] - self.column.parts[number].start)
                found = [values[within] for values in self._map(number)]
                out[_run(order[low:high])] = found[0] if len(found) == 1 else restore(*found)
        return out

    def _open(self, number: int) -> list[NDArray[Any]]:
        part = self.column.parts[number]
        return [
            map_values(self.folder / part.file, name, (part.stop - part.start, *shape), dtype)
            for name, (shape, dtype) in self.column.datasets.items()
        ]


def _run(index: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """A slice where the numbers follow each other, which copies in one piece."""
    first = int(index[0])
    follow = np.array_equal(index, np.arange(first, first + len(index)))
    return slice(first, first + len(index)) if follow else index
