"""Columns among joined features: where each lies, and some of them taken out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Features

    Ranges = Sequence[tuple[int, int]]


def places(columns: Iterable[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """Tell the range [start, stop) of each column, by its spec, where those of these widths are joined."""
    found, start = {}, 0
    for spec, width in columns:
        found[spec] = (start, start + width)
        start += width
    return found


def take(X: Features, ranges: Ranges) -> Features:
    """Give the columns of some ranges, joined in this order; without a copy where they lie side by side."""
    if all(stop == start for (_, stop), (start, _) in pairwise(ranges)):
        return X[:, ranges[0][0] : ranges[-1][1]]
    return np.hstack([X[:, start:stop] for start, stop in ranges])


def widths(ranges: Ranges) -> tuple[int, ...]:
    """Tell how wide each range is: the `blocks` of what `take` gives."""
    return tuple(stop - start for start, stop in ranges)
