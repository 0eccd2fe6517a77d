"""Split strategies: by groups, at random, by a column of the user's own table, or by a test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.clustered import divide, hold_out_clusters
from img2prompt_cache.data.grouping import Grouping, choose_grouping, prompt_vectors
from img2prompt_cache.data.groups import factorize, merge_groups, renumber
from img2prompt_cache.data.kept_divisions import KeptDivisions
from img2prompt_cache.data.purging import near_held, purge
from img2prompt_cache.data.splits import Split, random_split, split_groups
from img2prompt_cache.data.test_sets import hold_out_set, value_rows
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.numerics.similarity_graph import edge_components
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.dataset import Dataset

    Rows = NDArray[np.int64]


def make_split(
    cache: Cache,
    data: Dataset,
    name: str,
    fraction: float,
    seed: int,
    folds: int | None = None,
    grouping: Grouping | None = None,
) -> Split:
    """Split a dataset.

    Parameters
    ----------
    cache : Cache
        The cache of the dataset.
    data : Dataset
    name : str
        ``"group"`` to keep near-identical prompts and identical images together; ``"random"`` to split single
        rows; the name of a column of the user's own table; or ``column=value`` to hold out the rows with that
        value as a test set, see `test_sets`.
    fraction : float
        Share of rows to hold out, if `folds` is None.
    seed : int
        Seed of the shuffle.
    folds : int, optional
        Number of folds, each of which is held out once.
    grouping : Grouping, optional
        How near-identical prompts are told; from `choose_grouping`, which is asked if it is absent.

    Raises
    ------
    UsageError
        If there is no such column, a side would be empty, or there are fewer groups than folds.
    """
    grouping = grouping or choose_grouping(cache, data)
    split = _split(cache, data, grouping, name, fraction, seed, folds)
    return replace(split, grouped_by=(grouping.column.spec, grouping.threshold))


def _split(
    cache: Cache,
    data: Dataset,
    grouping: Grouping,
    name: str,
    fraction: float,
    seed: int,
    folds: int | None,
) -> Split:
    vectors, further = prompt_vectors(cache, data, grouping.column)
    kept = KeptDivisions.of(cache, data, grouping)
    if "=" in name:
        if folds is not None:
            raise UsageError("`folds`: a test set is one hold-out; leave one of both out", parameter="folds")
        column, value = (part.strip() for part in name.split("=", 1))
        if column not in cache.manifest.extra:
            raise unknown("column", column, cache.manifest.extra, where="of `test`", parameter="test")
        texts = cache.text(column)[column]
        held = value_rows([texts[row] for row in data.rows], column, value)
        strategy = f"{column}={value}"
        return hold_out_set(data, held, vectors, further, strategy, seed, grouping.threshold, kept=kept)
    if name not in ("group", "random") and name not in cache.manifest.extra:
        columns = ", ".join(cache.manifest.extra) or "none"
        raise UsageError(
            f'`split="{name}"`: it must be group, random, a column of your table, or COLUMN=VALUE for a test '
            f"set; columns in the cache: {columns}",
            parameter="split",
        )
    groups, clustered = divide(vectors, further, data.prompts, data.images, grouping.threshold, kept=kept)
    if name == "random":
        return replace(
            random_split(len(data.rows), fraction, seed, folds), groups=groups, clustered=clustered
        )
    if name == "group" and not clustered:
        return split_groups(groups, name, fraction, folds, seed)
    if name == "group":
        split = hold_out_clusters(groups, fraction, folds, seed, name)
        return purge(split, vectors, further, data.images, grouping.threshold, kept)
    texts = cache.text(name)[name]
    values = [texts[row] for row in data.rows]
    if not clustered:
        return column_split(values, groups, name, fraction, seed, folds)
    # Labels are not joined by near-identical prompts, which are purged instead.
    single = np.arange(len(values))
    split = replace(column_split(values, single, name, fraction, seed, folds), clustered=True)
    if names_sides(values):
        inside = np.flatnonzero(split.fold >= 0)
        partner = near_held(vectors, further, data.images, inside, grouping.threshold)
        return replace(split, groups=_joined_across(groups, split.fold, partner))
    if split.groups is single:
        split = replace(split, groups=groups)
    return purge(split, vectors, further, data.images, grouping.threshold, kept)


def _joined_across(clusters: Rows, fold: Rows, partner: Rows) -> Rows:
    """Divide clusters by the sides of a split, and join again what is near-identical across them.

    So that the groups that straddle the split are those that have near-identical rows on both sides.
    """
    groups = renumber(2 * clusters + (fold >= 0))
    near = np.flatnonzero((partner >= 0) & (fold < 0))
    return edge_components(groups.max() + 1, groups[near], groups[partner[near]])[groups]


FEW_LABELS = 5
"""Where fewer labels are left on a training side, inner folds divide them."""
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
"""The words by which a column can name the two sides of a split, in upper or lower case."""


def column_split(
    values: Sequence[str],
    groups: Rows,
    column: str,
    fraction: float = 0.2,
    seed: int = 0,
    folds: int | None = None,
) -> Split:
    """Split by a column of the user's table.

    If every value names a side (see `SIDES`), the column is the split, and `groups` serve inner folds only: a
    group may have rows on both sides (see `Split.straddling`). If no value does, they are labels: rows with
    the same label stay together, and so do rows of the same group, so labels that share a group count as one.
    Inner folds keep both whole; but where fewer than `FEW_LABELS` are left to train on, only `groups`.

    Parameters
    ----------
    values : sequence of str, length n
        The column.
    groups : numpy.ndarray, int64, shape (n,)
        Groups by prompt and image, from `prompt_groups`.
    column : str
        Name of the column, for messages and as the strategy.
    fraction, seed
        As for `hold_out`, for labels.
    folds : int, optional
        Hold out every label once, in so many folds, instead of a fraction of the rows.

    Raises
    ------
    UsageError
        If a value or a side is empty, some values name sides and others do not, or there are fewer than two
        labels; or if folds are given although the values name sides, or there are fewer labels than folds.
    """
    empty = [row for row, value in enumerate(values) if not value.strip()]
    if empty:
        raise UsageError(
            f"column {column!r} is empty in {counted(len(empty), 'row', 'rows')}, first in row {empty[0]}",
            parameter="split",
        )
    sides = [SIDES.get(value.strip().lower()) for value in values]
    if None in sides:
        _refuse_mixed(values, sides, column)
        labels = factorize(values)
        if labels.max(initial=0) == 0:
            raise UsageError(
                f"column {column!r} holds only {values[0]!r}; a split takes two labels", parameter="split"
            )
        whole = merge_groups(labels, groups)
        split = split_groups(whole, column, fraction, folds, seed)
        fewest = min(len(np.unique(whole[train])) for train, _ in split.sides)
        return split if fewest >= FEW_LABELS else replace(split, groups=groups)
    if folds is not None:
        raise UsageError(
            f"`folds`: column {column!r} names two sides, which is one hold-out; leave one out",
            parameter="folds",
        )
    inside = np.array([side == "validation" for side in sides], bool)
    if inside.all() or not inside.any():
        missing = "training" if inside.all() else "validation"
        raise UsageError(
            f"column {column!r} leaves no rows for {missing}; it holds only {sorted({*values})}",
            parameter="split",
        )
    return Split(column, seed, np.where(inside, 0, -1), groups)


def names_sides(values: Sequence[str]) -> bool:
    """Whether every value of a column names a side of a split."""
    return all(value.strip().lower() in SIDES for value in values)


def _refuse_mixed(values: Sequence[str], sides: Sequence[str | None], column: str) -> None:
    """Refuse a column in which some values name a side: as labels, `train` and `val` would be shuffled.

    Raises
    ------
    UsageError
        Naming the values of both kinds.
    """
    known = sorted({value for value, side in zip(values, sides, strict=True) if side})
    if not known:
        return
    others = sorted({value for value, side in zip(values, sides, strict=True) if not side})
    shown = ", ".join(map(repr, others[:5])) + (", …" if len(others) > 5 else "")
    raise UsageError(
        f"column {column!r} names sides of a split ({', '.join(map(repr, known))}) and holds other values "
        f"besides ({shown}). Sides are {', '.join(SIDES)}; leave out the other rows with `only`, or name a "
        "column in which every value is a side, or none is",
        parameter="split",
    )
