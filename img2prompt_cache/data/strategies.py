"""Split strategies: by groups, at random, or by a column of the user's own table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.groups import codes, merged, prompt_groups
from img2prompt_cache.data.splits import Split, divide, random_split
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.dataset import Dataset

    Rows = NDArray[np.int64]


def make_split(
    cache: Cache, data: Dataset, name: str, fraction: float, seed: int, folds: int | None = None
) -> Split:
    """Split a dataset: ``"group"``, ``"random"``, or by a column of the user's own table.

    Parameters
    ----------
    cache : Cache
        Where the dataset is from.
    data : Dataset
    name : str
    fraction, seed, folds
        As for `divide`.

    Raises
    ------
    UsageError
        If the column is not there, a side would be empty, or there are fewer groups than folds.
    """
    groups = prompt_groups(data.y, data.prompts, data.images)
    if name == "group":
        return divide(groups, name, fraction, folds, seed)
    if name == "random":
        return replace(random_split(len(data.rows), fraction, seed, folds), groups=groups)
    if name not in cache.manifest.extra:
        columns = ", ".join(cache.manifest.extra) or "none"
        raise UsageError(
            f'`split="{name}"`: it must be group, random, or a column of your table; columns in the cache: '
            f"{columns}",
            parameter="split",
        )
    values = cache.text(name)[name]
    return column_split([values[row] for row in data.rows], groups, name, fraction, seed, folds)


SIDES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "validation",
    "dev": "validation",
    "holdout": "validation",
}
"""What a split column may call its two sides, in any case."""


def column_split(
    values: Sequence[str],
    groups: Rows,
    column: str,
    fraction: float = 0.2,
    seed: int = 0,
    folds: int | None = None,
) -> Split:
    """Split by a column of the user's.

    Where every value names a side (see `SIDES`), that is the split, and `groups` are kept for inner folds;
    see `Split.straddling` for what that costs. Otherwise the values are labels: rows of one label stay
    together, and so do rows of one group, so that labels which share a group count as one.

    Parameters
    ----------
    values : sequence of str, length n
        The column.
    groups : numpy.ndarray, int64, shape (n,)
        Groups by prompt and image, as `prompt_groups` gives them.
    column : str
        Its name, for messages and as the strategy.
    fraction, seed
        As for `hold_out`, for labels.
    folds : int, optional
        Hold out every label once, in so many folds, instead of a fraction of them.

    Raises
    ------
    UsageError
        If a value is empty, one side is, or there are fewer than two labels; or if folds are asked for where
        values name sides, or more of them than there are labels.
    """
    empty = [row for row, value in enumerate(values) if not value.strip()]
    if empty:
        raise UsageError(f"column {column!r} is empty in {len(empty)} rows, first in row {empty[0]}")
    sides = [SIDES.get(value.strip().lower()) for value in values]
    if None in sides:
        labels = codes(values)
        if labels.max(initial=0) == 0:
            raise UsageError(f"column {column!r} holds only {values[0]!r}; a split takes two labels")
        return divide(merged(labels, groups), column, fraction, folds, seed)
    if folds is not None:
        raise UsageError(
            f"`folds`: column {column!r} names two sides, which is one hold-out; leave one out",
            parameter="folds",
        )
    inside = np.array([side == "validation" for side in sides], bool)
    if inside.all() or not inside.any():
        missing = "training" if inside.all() else "validation"
        raise UsageError(f"column {column!r} leaves no rows for {missing}; it holds only {sorted({*values})}")
    return Split(column, seed, np.where(inside, 0, -1), groups)
