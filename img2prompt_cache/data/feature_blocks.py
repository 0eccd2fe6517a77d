"""Feature blocks: the features of several backbones side by side, and some of them selected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.trunk_rows import TrunkRows

    Ranges = Sequence[tuple[int, int]]
    Inputs = NDArray[np.float32] | TrunkRows
    AnyFeatures: TypeAlias = "Inputs | FeatureBlocks | ColumnRows"


class BlockWidth(int):
    """The width of a block, which also says whether heads that standardise do so with each of its features.

    Parameters
    ----------
    width : int
    standardise : bool
        False where the features' relative scales mean something: then they share one scale.
    """

    standardise: bool

    def __new__(cls, width: int, *, standardise: bool = True) -> Self:
        """Make one; it is an int in all else."""
        made = super().__new__(cls, width)
        made.standardise = standardise
        return made


class FeatureBlocks:
    """Features of several backbones, at least one of them a trunk's, used like one array of features.

    Each block keeps its own shape, so that a trunk need not fit into memory. The range of a block is counted
    as if all blocks were flattened and concatenated.

    Parameters
    ----------
    blocks : sequence of numpy.ndarray or TrunkRows, shapes (n, …)
    """

    def __init__(self, blocks: Sequence[Inputs]) -> None:
        self.blocks = tuple(blocks)

    def __len__(self) -> int:
        return len(self.blocks[0])

    @property
    def shape(self) -> tuple[int, int]:
        """As if concatenated: (n, p)."""
        return len(self), sum(map(width, self.blocks))

    def __getitem__(self, index: slice | NDArray[Any]) -> FeatureBlocks:
        """Select rows; nothing of a trunk is read."""
        return FeatureBlocks([block[index] for block in self.blocks])


def concatenate(blocks: Sequence[Inputs]) -> AnyFeatures:
    """Put blocks of features side by side.

    Parameters
    ----------
    blocks : sequence of numpy.ndarray or TrunkRows, shapes (n, …)

    Returns
    -------
    numpy.ndarray, float32, shape (n, p); or TrunkRows; or FeatureBlocks
        The block itself where there is only one; one array where every block has a vector for each row.
    """
    if len(blocks) == 1:
        return blocks[0]
    arrays = [block for block in blocks if len(block.shape) == 2]
    return np.concatenate(arrays, axis=1) if len(arrays) == len(blocks) else FeatureBlocks(blocks)


def block_ranges(blocks: Iterable[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """Find the range [start, stop) of each block, given as (name, width), when they are concatenated."""
    names, each = zip(*blocks, strict=True)
    return dict(zip(names, consecutive_ranges(each), strict=True))


def consecutive_ranges(widths: Iterable[int]) -> list[tuple[int, int]]:
    """Find the ranges [start, stop) of blocks of these widths when they are concatenated."""
    stops = list(accumulate(widths))
    return list(zip([0, *stops], stops, strict=False))


def select_blocks(X: AnyFeatures, ranges: Ranges) -> AnyFeatures:
    """Select blocks by their ranges, concatenated in that order; adjacent ranges of an array are not copied.

    Parameters
    ----------
    X : as `concatenate` returns it, or ColumnRows
        Of the latter nothing is read.
    ranges : sequence of (int, int)
        Not empty. A trunk can only be selected whole.

    Raises
    ------
    UsageError
        If `X` contains a trunk and a range is not exactly one of its blocks.
    """
    if isinstance(X, ColumnRows):
        return X.select(ranges)
    if isinstance(X, np.ndarray) and X.ndim == 2:
        if all(stop == start for (_, stop), (start, _) in pairwise(ranges)):
            return X[:, ranges[0][0] : ranges[-1][1]]
        return np.hstack([X[:, start:stop] for start, stop in ranges])
    blocks = X.blocks if isinstance(X, FeatureBlocks) else (X,)
    by_range = dict(zip(consecutive_ranges(map(width, blocks)), blocks, strict=True))
    if any(tuple(each) not in by_range for each in ranges):
        raise UsageError(f"{list(ranges)} are not among the blocks {list(by_range)}, one of them a trunk's")
    return concatenate([by_range[start, stop] for start, stop in ranges])


def select_widths(widths: Sequence[int], ranges: Ranges) -> tuple[int, ...]:
    """Find the widths of the blocks of what `select_blocks` returns.

    Parameters
    ----------
    widths : sequence of int
        Of the blocks of what is selected from.
    ranges : sequence of (int, int)
        Each of whole blocks; one that is not is a block itself.
    """
    found: list[int] = []
    for start, stop in ranges:
        inside = [
            width
            for width, (first, last) in zip(widths, consecutive_ranges(widths), strict=True)
            if start <= first and last <= stop
        ]
        found += inside if sum(inside) == stop - start else [stop - start]
    return tuple(found)


def width(block: AnyFeatures) -> int:
    """Count the values of one row."""
    return math.prod(block.shape[1:])
