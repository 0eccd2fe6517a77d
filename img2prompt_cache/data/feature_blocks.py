"""Columns side by side: where each lies, and some of them taken out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.trunk_rows import TrunkRows

    Ranges = Sequence[tuple[int, int]]
    Inputs = NDArray[np.float32] | TrunkRows


class Joined:
    """Rows of several columns of which one at least is a trunk's, in the place of an array of features.

    Each column keeps its own shape, so that a trunk need not fit into memory. Where it lies is told as if all
    were flattened and joined.

    Parameters
    ----------
    columns : sequence of numpy.ndarray or TrunkRows, shapes (n, …)
    """

    def __init__(self, columns: Sequence[Inputs]) -> None:
        self.columns = tuple(columns)

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def shape(self) -> tuple[int, int]:
        """As if joined: (n, p)."""
        return len(self), sum(map(width, self.columns))

    def __getitem__(self, index: slice | NDArray[Any]) -> Joined:
        """Select rows; nothing of a trunk is read."""
        return Joined([column[index] for column in self.columns])


def join(columns: Sequence[Inputs]) -> Any:
    """Lay columns side by side.

    Parameters
    ----------
    columns : sequence of numpy.ndarray or TrunkRows, shapes (n, …)

    Returns
    -------
    numpy.ndarray, float32, shape (n, p); or TrunkRows; or Joined
        The column itself where there is one; one array where all are of vectors.
    """
    if len(columns) == 1:
        return columns[0]
    arrays = [column for column in columns if len(column.shape) == 2]
    return np.concatenate(arrays, axis=1) if len(arrays) == len(columns) else Joined(columns)


def places(columns: Iterable[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """Tell the range [start, stop) of each column, by its spec, where those of these widths are joined."""
    specs, each = zip(*columns, strict=True)
    return dict(zip(specs, spans(each), strict=True))


def spans(each: Iterable[int]) -> list[tuple[int, int]]:
    """Tell the ranges [start, stop) of columns of these widths."""
    stops = list(accumulate(each))
    return list(zip([0, *stops], stops, strict=False))


def take(X: Any, ranges: Ranges) -> Any:
    """Give the columns of some ranges, joined in this order; without a copy where they lie side by side.

    Parameters
    ----------
    X : as `join` gives it
    ranges : sequence of (int, int)
        Not empty. A trunk can be taken as a whole only.

    Raises
    ------
    UsageError
        If a range is no column of `X`, where one of these is a trunk's.
    """
    if isinstance(X, np.ndarray) and X.ndim == 2:
        if all(stop == start for (_, stop), (start, _) in pairwise(ranges)):
            return X[:, ranges[0][0] : ranges[-1][1]]
        return np.hstack([X[:, start:stop] for start, stop in ranges])
    columns = X.columns if isinstance(X, Joined) else (X,)
    by_place = dict(zip(spans(map(width, columns)), columns, strict=True))
    if any(tuple(each) not in by_place for each in ranges):
        raise UsageError(f"{list(ranges)} are not among the columns {list(by_place)}, one of them a trunk's")
    return join([by_place[start, stop] for start, stop in ranges])


def width(column: Any) -> int:
    """How many values a row has."""
    return math.prod(column.shape[1:])


def widths(ranges: Ranges) -> tuple[int, ...]:
    """Tell how wide each range is: the `blocks` of what `take` gives."""
    return tuple(stop - start for start, stop in ranges)
