"""Batches of rows of several columns, for training: in a random order, straight from the mapped parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.mapped import MappedColumn
from img2prompt_cache.data.trunk_rows import TrunkRows

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def batches(
    columns: Sequence[MappedColumn | TrunkRows | NDArray[Any]],
    rows: NDArray[np.int64],
    size: int,
    seed: int | None = None,
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Go through rows once, batch by batch; the next batch is read while the last one is worked on.

    Parameters
    ----------
    columns : sequence of MappedColumn, TrunkRows or numpy.ndarray
    rows : numpy.ndarray, int64, shape (n,)
        Which rows.
    size : int
        Rows of a batch; the last one may have fewer.
    seed : int, optional
        Of the order; as `rows` says if absent. Give each epoch its own.

    Yields
    ------
    tuple of numpy.ndarray, shape (size, …)
        One for each column, of its dtype.
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


class RowDataset:
    """Rows of several columns as a map-style dataset for `torch.utils.data.DataLoader`.

    Parameters
    ----------
    columns : sequence of MappedColumn
    rows : numpy.ndarray, int64, shape (n,)
        Which rows; item i is row ``rows[i]``.
    """

    def __init__(self, columns: Sequence[MappedColumn], rows: NDArray[np.int64]) -> None:
        self.columns, self.rows = columns, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, ...]:
        """Give one row: a tensor for each column."""
        return self.__getitems__([item])[0]

    def __getitems__(self, items: list[int]) -> list[tuple[torch.Tensor, ...]]:
        """Give several rows, read together; this is what a DataLoader calls."""
        import torch

        rows = self.rows[items]
        return list(zip(*(torch.from_numpy(column[rows]) for column in self.columns), strict=True))
