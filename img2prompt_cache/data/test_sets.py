"""Test sets: rows held out by a value of a column; rows that are near-identical to them are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.extra_pairs import near_any
from img2prompt_cache.data.further_prompts import all_vectors
from img2prompt_cache.data.groups import THRESHOLD, prompt_groups
from img2prompt_cache.data.splits import PURGED, Split
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.dataset import Dataset
    from img2prompt_cache.data.further_prompts import FurtherPrompts

_MOST = 20
"""Values of a column that a message lists."""


def value_rows(values: Sequence[str], column: str, value: str) -> NDArray[np.bool_]:
    """Find the rows of a test set.

    Parameters
    ----------
    values : sequence of str, length n
        The column; white space around a value is ignored.
    column, value : str

    Returns
    -------
    numpy.ndarray, bool, shape (n,)

    Raises
    ------
    UsageError
        If no row has the value, or all have.
    """
    stripped = [each.strip() for each in values]
    held = np.array([each == value for each in stripped], bool)
    if not held.any():
        shown = ", ".join(map(repr, sorted({*stripped})[:_MOST]))
        raise UsageError(f"`test`: no usable row has {column}={value}; there are {shown}", parameter="test")
    if held.all():
        raise UsageError(
            f"`test`: all {len(held)} usable rows have {column}={value}, so none is left to train on",
            parameter="test",
        )
    return held


def hold_out_set(
    data: Dataset,
    held: NDArray[np.bool_],
    first: NDArray[np.float32],
    further: FurtherPrompts | None,
    strategy: str,
    seed: int,
    threshold: float = THRESHOLD,
) -> Split:
    """Hold out a test set, and purge what is near-identical to it from the rest.

    A row of the rest is purged if one of its prompts has a cosine of at least `threshold` with one of
    the test set, or if its image is in the test set. So nothing of the test set is seen in training, and no
    group has rows on both sides.

    Parameters
    ----------
    data : Dataset
        n rows.
    held : numpy.ndarray, bool, shape (n,)
        Those of the test set.
    first : numpy.ndarray, float32, shape (n, d)
        Embeddings of the first prompts, from `grouping.embeddings_in`.
    further : FurtherPrompts or None
        And of the others.
    strategy : str
        Name to record with the split: ``column=value``.
    seed : int
        Recorded with the split; nothing is drawn.
    threshold : float
        Smallest cosine of near-identical prompts; see `choose_grouping`.

    Returns
    -------
    Split
        A hold-out. Its groups, which inner folds keep whole, are those of the rows that are left.

    Raises
    ------
    UsageError
        If nothing is left to train on.
    """
    near = ~held & near_rows(first, further, data.images, held, threshold)
    kept = np.flatnonzero(~near)
    groups = np.arange(len(held)) + len(held)
    groups[kept] = prompt_groups(
        first[kept],
        [data.prompts[row] for row in kept],
        [data.images[row] for row in kept],
        threshold,
        further=None if further is None else further.select(kept),
    )
    # A cosine at the threshold may be rounded to either side.
    near |= ~held & np.isin(groups, groups[held])
    if (near | held).all():
        raise UsageError(
            f"`test`: every other row is near-identical to one with {strategy}, so none is left to train on",
            parameter="test",
        )
    return Split(strategy, seed, np.where(held, 0, np.where(near, PURGED, -1)), groups)


def near_rows(
    first: NDArray[np.float32],
    further: FurtherPrompts | None,
    images: Sequence[str],
    held: NDArray[np.bool_],
    threshold: float = THRESHOLD,
) -> NDArray[np.bool_]:
    """Tell which rows are near-identical to one that is held out; those that are held out count, too.

    Parameters
    ----------
    first : numpy.ndarray, float32, shape (n, d)
        Embeddings of the first prompts.
    further : FurtherPrompts, optional
    images : sequence of str, length n
        Digests of the images.
    held : numpy.ndarray, bool, shape (n,)
    threshold : float
        Smallest cosine of near-identical prompts.

    Returns
    -------
    numpy.ndarray, bool, shape (n,)
    """
    rows = np.flatnonzero(held)
    known = all_vectors(first[rows], None if further is None else further.select(rows))
    near = near_any(first, known, threshold)
    if further is not None:
        near[further.row[near_any(further.vectors, known, threshold)]] = True
    seen = {images[row] for row in rows.tolist()}
    same: NDArray[np.bool_] = np.array([image in seen for image in images], bool)
    return near | same
