"""A numeric column as memory maps of its parts: any rows, without reading the rest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.parts import Loader, map_values
from img2prompt_cache.cache.quantise import restore
from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_MAPS = 256
"""Maps of a column kept open, at most; each holds a file descriptor."""
SHARE = 16
"""Nor more than this part of the descriptors that the process may have: there are up to two maps a part, and
several columns, some with views."""

READERS = 2
SCATTERED = 8
"""Rows that a part must give on average to be worth reading as a whole."""


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
        self._starts = np.array([part.start for part in column.parts], np.int64)
        self._map = lru_cache(_most_maps())(self._open)
        self._windows: list[_Window] | None = None

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
        if not len(rows):
            return np.empty((0, *self.column.shape), self.dtype)
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        if len(rows) < SCATTERED * len(self.column.parts) <= SCATTERED * MOST_MAPS:
            return self._scattered(rows)
        return self._by_part(rows)

    def _scattered(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read few rows of many parts."""
        if self._windows is None:
            try:
                maps = [self._map(number) for number in range(len(self.column.parts))]
            except Img2PromptError:  # no matter, unless these rows lie in the part that is damaged
                return self._by_part(rows)
            self._windows = [_Window(list(each)) for each in zip(*maps, strict=True)]
        number = np.searchsorted(self._stops, rows, side="right")
        within = rows - self._starts[number]
        found = [window.take(number, within) for window in self._windows]
        values = found[0] if len(found) == 1 else restore(*found)
        return values.astype(self.dtype, copy=False)

    def _by_part(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read many rows of each part."""
        out = np.empty((len(rows), *self.column.shape), self.dtype)
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

    def load(self) -> NDArray[Any]:
        """Read the whole column: shape (rows, …), of the chosen dtype."""
        out, loader = np.empty(self.shape, self.dtype), Loader()
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda number: self._load(number, out, loader), range(len(self.column.parts))))
        return out

    def _load(self, number: int, out: NDArray[Any], loader: Loader) -> None:
        part, datasets = self.column.parts[number], self.column.datasets
        place = out[part.start : part.stop]
        if len(datasets) == 1 and self.column.dtype == self.dtype:
            loader.read(self.folder / part.file, "values", place)
            return
        found = []
        for name, (shape, dtype) in datasets.items():
            found.append(np.empty((len(place), *shape), dtype))
            loader.read(self.folder / part.file, name, found[-1])
        place[:] = found[0] if len(found) == 1 else restore(*found)

    def _open(self, number: int) -> list[NDArray[Any]]:
        return _maps(self.folder, self.column, number)


class MappedViews(MappedColumn):
    """Views of a mapped column, each a row of its own: view v of row r is number ``r * views + v``.

    Parameters
    ----------
    folder, dtype
        As for `MappedColumn`.
    column : Column
        Of kind views.
    """

    def __init__(self, folder: Path, column: Column, dtype: str = "float32") -> None:
        self.stored, self.views = column, column.shape[0]
        parts = tuple(
            replace(part, start=part.start * self.views, stop=part.stop * self.views) for part in column.parts
        )
        # A trunk column, because of int8 values it too has a scale for each of its rows.
        flat = replace(column, kind="trunk", shape=column.shape[1:], parts=parts)
        super().__init__(folder, flat, dtype)

    def load(self) -> NDArray[Any]:
        """Read every view of every row: shape (rows × views, …), of the chosen dtype."""
        return MappedColumn(self.folder, self.stored, self.dtype.name).load().reshape(self.shape)

    def _open(self, number: int) -> list[NDArray[Any]]:
        return [values.reshape(-1, *values.shape[2:]) for values in _maps(self.folder, self.stored, number)]


def _maps(folder: Path, column: Column, number: int) -> list[NDArray[Any]]:
    """Map the datasets of a part."""
    part = column.parts[number]
    # Indexing a plain view of a map is faster than indexing the map.
    return [
        map_values(folder / part.file, name, (part.stop - part.start, *shape), dtype).view(np.ndarray)
        for name, (shape, dtype) in column.datasets.items()
    ]


class _Window:
    """Maps of many parts as one array, so that numpy gathers rows of all of them in one call.

    It spans the memory from the lowest map to the highest, as rows that overlap, each one item further than
    the one before; only rows that lie in a map are ever touched.

    Parameters
    ----------
    maps : list of numpy.ndarray
        Of one dtype, equal but for their first axis; kept, because the window does not own them.
    """

    def __init__(self, maps: list[NDArray[Any]]) -> None:
        self._maps = maps
        item, self._shape = maps[0].dtype.itemsize, maps[0].shape[1:]
        self._width = int(np.prod(self._shape))
        addresses = np.array([values.ctypes.data for values in maps], np.int64)
        if (addresses % item).any():
            raise ValueError("values are not aligned")
        self._first = (addresses - addresses.min()) // item
        ends = self._first + [values.size for values in maps]
        self.__array_interface__ = {
            "version": 3,
            "data": (int(addresses.min()), True),
            "typestr": maps[0].dtype.str,
            "shape": (int(ends.max()) - self._width + 1, self._width),
            "strides": (item, item),
        }
        self._rows: NDArray[Any] = np.asarray(self)

    def take(self, number: NDArray[np.int64], within: NDArray[np.int64]) -> NDArray[Any]:
        """Give rows `within` of maps `number`, (n,) each: a copy, shape (n, …)."""
        values: NDArray[Any] = self._rows[self._first[number] + within * self._width]
        return values.reshape(len(number), *self._shape)


def _run(index: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """A slice where the numbers follow each other, which copies in one piece."""
    first, stop = int(index[0]), int(index[0]) + len(index)
    if index[-1] == stop - 1 and np.array_equal(index, np.arange(first, stop)):
        return slice(first, stop)
    return index


def _most_maps() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MOST_MAPS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_MAPS if limit == resource.RLIM_INFINITY else max(1, min(MOST_MAPS, limit // SHARE))
