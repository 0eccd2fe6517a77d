"""A numeric column as memory maps of its parts: any rows are read without reading the others."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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

    Take = Callable[[int, NDArray[np.int64]], list[Values]]

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
        self._require(rows)
        if len(rows) < SCATTERED * len(self.column.parts) <= SCATTERED * self._most:
            return self._scattered(rows)
        return self._by_part(rows, self._from_maps)

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

    def _by_part(self, rows: NDArray[np.int64], take: Take) -> Values:
        """Take rows of one part after the other."""
        out = np.empty((len(rows), *self.column.shape), self.dtype)
        # Ascending reads are what a disk does best.
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        ends = np.searchsorted(ascending, self._stops).tolist()
        for number, (low, high) in enumerate(zip([0, *ends], ends, strict=False)):
            if low < high:
                found = take(number, ascending[low:high] - self.column.parts[number].start)
                out[_as_slice(order[low:high])] = found[0] if len(found) == 1 else restore(*found)
        return out

    def _from_maps(self, number: int, within: NDArray[np.int64]) -> list[Values]:
        """Take rows of a part, ascending, from the maps of its datasets."""
        rows = _as_slice(within)
        return [values[rows] for values in self._map(number)]

    def read(self, rows: NDArray[np.int64]) -> Values:
        """Read rows as indexing does, but from the files: pages of a map count as this process's memory.

        Unlike a map, a file also tells when it was cut short.

        Raises
        ------
        IndexError, Img2PromptError
            As indexing; also if a part was changed since it was first read.
        """
        self._require(rows)
        return self._by_part(rows, self._from_file)

    def _from_file(self, number: int, within: NDArray[np.int64]) -> list[Values]:
        """Read rows of a part, ascending, of each of its datasets."""
        if number not in self._offsets:
            self._map(number)
        part, found = self.column.parts[number], []
        first, stop = int(within[0]), int(within[-1]) + 1
        whole = len(within) * SPARSE >= stop - first
        wanted = np.arange(first, stop) if whole else within
        with (self.folder / part.file).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            changed = self._stamps.setdefault(number, stamp) != stamp
            for name, (shape, dtype) in self.column.datasets.items():
                values = np.empty((len(wanted), *shape), dtype)
                offset, width = self._offsets[number][name], values.nbytes // len(values)
                pieces = [values] if whole else np.split(values, len(values))
                for piece, row in zip(pieces, wanted.tolist(), strict=False):
                    file.seek(offset + row * width)
                    changed |= file.readinto(piece.data.cast("B")) != piece.nbytes
                found.append(values[within - first] if whole else values)
        if changed:
            raise Img2PromptError(
                f"{self.folder / part.file} was changed by another process while it was read; do this again"
            )
        return found

    def _require(self, rows: NDArray[np.int64]) -> None:
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")

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
