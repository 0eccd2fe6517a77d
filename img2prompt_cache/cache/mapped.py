"""A numeric column as memory maps of its parts: any rows are read without reading the others."""

from __future__ import annotations

import math
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from img2prompt_cache.cache.identity import recorded_identity
from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.parts import Loader, Values, locate, map_at
from img2prompt_cache.cache.quantise import restore
from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PARTS = 256
"""Parts of a column whose maps stay open, at most; each map holds a file descriptor."""
SHARE = 8
"""A column takes at most one file descriptor in so many: a fit may read several, some of them with views."""

ALL = 2
"""All columns together keep at most one file descriptor in so many."""

READERS = 2
SCATTERED = 8
"""Rows read from each part, on average, from which on reading part by part is faster."""
SPARSE = 4
"""A range of a part is read whole where at least one row in so many is wanted."""
SMALL = 4096
"""Bytes of a row up to which rows are joined as bytes; that lets no other Python thread run meanwhile."""


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
        self._most = _most_parts(len(column.datasets))
        self._maps: dict[int, list[Values]] = {}
        with _LOCK:
            _LIVE.add(self)
        self._offsets: dict[int, dict[str, int]] = {}
        self._stamps: dict[int, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        return self.column.rows

    def __reduce__(self) -> tuple[type[MappedColumn], tuple[Path, Column, str]]:
        """Pickle where it is and what it is; no map, and no value."""
        return MappedColumn, (self.folder.absolute(), self.column, self.dtype.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole column: (rows, …)."""
        return (self.column.rows, *self.column.shape)

    def __getitem__(self, rows: NDArray[np.int64]) -> Values:
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
        if len(rows) < SCATTERED * len(self.column.parts) <= SCATTERED * self._most:
            return self._scattered(rows)
        return self._by_part(rows)

    def _scattered(self, rows: NDArray[np.int64]) -> Values:
        """Read few rows of many parts, whose maps all stay open."""
        number = np.searchsorted(self._stops, rows, side="right")
        within = (rows - self._starts[number]).tolist()
        maps = [self._maps.get(part) or self._map(part) for part in number.tolist()]
        found = [
            _stack([values[row] for values, row in zip(each, within, strict=True)])
            for each in zip(*maps, strict=True)
        ]
        values = found[0] if len(found) == 1 else restore(*found)
        return values.astype(self.dtype, copy=False)

    def _by_part(self, rows: NDArray[np.int64]) -> Values:
        """Read many rows of each part."""
        out = np.empty((len(rows), *self.column.shape), self.dtype)
        # Ascending reads are what a disk does best.
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        ends = np.searchsorted(ascending, self._stops).tolist()
        for number, (low, high) in enumerate(zip([0, *ends], ends, strict=False)):
            if low < high:
                within = _as_slice(ascending[low:high] - self.column.parts[number].start)
                found = [values[within] for values in self._map(number)]
                out[_as_slice(order[low:high])] = found[0] if len(found) == 1 else restore(*found)
        return out

    def read(self, rows: NDArray[np.int64]) -> Values:
        """Read rows as indexing does, without their pages of the files staying in this process's memory.

        Where many rows of a range of a part are asked for, the range is read from the file. Unlike a map,
        that tells when a part was cut short.

        Raises
        ------
        IndexError, Img2PromptError
            As indexing; also if a part was changed since it was first read.
        """
        starts = np.searchsorted(self._stops, rows, side="right")
        if not len(rows) or (np.diff(rows) <= 0).any() or rows[0] < 0 or rows[-1] >= len(self):
            return self._released(rows)
        out = np.empty((len(rows), *self.column.shape), self.dtype)
        edges = [0, *(np.flatnonzero(np.diff(starts)) + 1).tolist(), len(rows)]
        for low, high in pairwise(edges):
            number = int(starts[low])
            within = rows[low:high] - self._starts[number]
            if len(within) * SPARSE < within[-1] + 1 - within[0]:
                out[low:high] = self._released(rows[low:high])
            else:
                first, stop = int(within[0]), int(within[-1]) + 1
                found = [values[within - first] for values in self._from_file(number, first, stop)]
                out[low:high] = found[0] if len(found) == 1 else restore(*found)
        return out

    def _released(self, rows: NDArray[np.int64]) -> Values:
        values = self[rows]
        self.release()
        return values

    def _from_file(self, number: int, start: int, stop: int) -> list[Values]:
        """Read a range of rows of a part, of each of its datasets."""
        if number not in self._offsets:
            self._map(number)
        part, found = self.column.parts[number], []
        with (self.folder / part.file).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            changed = self._stamps.setdefault(number, stamp) != stamp
            for name, (shape, dtype) in self.column.datasets.items():
                values = np.empty((stop - start, *shape), dtype)
                file.seek(self._offsets[number][name] + start * (values.nbytes // len(values)))
                changed |= file.readinto(values.data.cast("B")) != values.nbytes
                found.append(values)
        if changed:
            raise Img2PromptError(
                f"{self.folder / part.file} was changed by another process while it was read; do this again"
            )
        return found

    def release(self) -> None:
        """Give back the memory that the maps take where rows were read; what is read again is mapped again.

        The operating system keeps the pages of files in memory as long as there is room, and those that are
        mapped count as this process's.
        """
        for maps in [*self._maps.values()]:
            for values in maps:
                mapped = getattr(values.base, "_mmap", None)
                if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                    mapped.madvise(mmap.MADV_DONTNEED)

    def load(self) -> Values:
        """Read the whole column: shape (rows, …), of the chosen dtype."""
        out, loader = np.empty(self.shape, self.dtype), Loader()
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda number: self._load(number, out, loader), range(len(self.column.parts))))
        return out

    def _load(self, number: int, out: Values, loader: Loader) -> None:
        part, datasets = self.column.parts[number], self.column.datasets
        place, identity = out[part.start : part.stop], recorded_identity(self.column, part)
        if len(datasets) == 1 and self.column.dtype == self.dtype:
            loader.read(self.folder / part.file, "values", place, identity)
            return
        found = []
        for name, (shape, dtype) in datasets.items():
            found.append(np.empty((len(place), *shape), dtype))
            loader.read(self.folder / part.file, name, found[-1], identity)
        place[:] = found[0] if len(found) == 1 else restore(*found)

    def _map(self, number: int) -> list[Values]:
        """Map the datasets of a part. The maps of the first parts that are asked for stay open."""
        maps = self._maps.get(number)
        if maps is None:
            maps = self._open(self.column, number)
            if len(self._maps) < self._most and _kept_maps() < _most_maps(ALL):
                self._maps[number] = maps
        return maps

    def _open(self, column: Column, number: int) -> list[Values]:
        part, known = column.parts[number], self._offsets.get(number, {})
        maps = []
        for name, (shape, dtype) in column.datasets.items():
            stored = (self.folder / part.file, name, (part.stop - part.start, *shape), dtype)
            if name not in known:
                known[name] = locate(*stored, recorded_identity(column, part))
            maps.append(map_at(*stored, known[name]))
        self._offsets[number] = known  # asking HDF5 takes four times as long as mapping
        return maps


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

    def __reduce__(self) -> tuple[type[MappedColumn], tuple[Path, Column, str]]:
        """Pickle as any mapped column, but with the column of views."""
        return MappedViews, (self.folder.absolute(), self.stored, self.dtype.name)

    def load(self) -> Values:
        """Read every view of every row: shape (rows × views, …), of the chosen dtype."""
        return MappedColumn(self.folder, self.stored, self.dtype.name).load().reshape(self.shape)

    def _open(self, column: Column, number: int) -> list[Values]:
        return [values.reshape(-1, *values.shape[2:]) for values in super()._open(self.stored, number)]


def _stack(rows: list[Values]) -> Values:
    """Copy n rows into one array, shape (n, …)."""
    if rows[0].nbytes > SMALL:
        joined = np.concatenate(rows)
    else:  # in half the time: numpy takes most of a microsecond for each row
        data = bytearray().join(rows)  # type: ignore[arg-type]  # arrays are typed as buffers since Python 3.12
        joined = np.frombuffer(data, rows[0].dtype)
    return joined.reshape(len(rows), *rows[0].shape)


def _as_slice(index: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """Give a slice where the numbers follow each other: it is copied in one piece."""
    first, stop = int(index[0]), int(index[0]) + len(index)
    if index[-1] == stop - 1 and np.array_equal(index, np.arange(first, stop)):
        return slice(first, stop)
    return index


_LIVE: WeakSet[MappedColumn] = WeakSet()
_LOCK = Lock()


def _kept_maps() -> int:
    """Count the maps that stay open, of all columns in use."""
    with _LOCK:
        return sum(len(column._maps) * len(column.column.datasets) for column in _LIVE)


def _most_parts(maps: int) -> int:
    """Say of how many parts, with so many maps each, the maps may stay open."""
    return int(max(1, min(MOST_PARTS, _most_maps(SHARE) // maps)))


def _most_maps(share: int) -> float:
    """Say how many maps one file descriptor in `share` allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else limit // share
