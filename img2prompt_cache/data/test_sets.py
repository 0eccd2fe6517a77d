"""Test sets: rows held out by a value of a column; rows that are near-identical to them are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.texts import Texts
from img2prompt_cache.data.clustered import divide
from img2prompt_cache.data.groups import THRESHOLD
from img2prompt_cache.data.kept_divisions import NOTHING_KEPT, KeptDivisions
from img2prompt_cache.data.purging import near_held
from img2prompt_cache.data.splits import PURGED, Split
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.dataset import Dataset
    from img2prompt_cache.data.further_prompts import FurtherPrompts
    from img2prompt_cache.data.prompt_vectors import PromptVectors

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
    vectors: PromptVectors,
    further: FurtherPrompts | None,
    strategy: str,
    seed: int,
    threshold: float = THRESHOLD,
    *,
    clustered: bool | None = None,
    kept: KeptDivisions = NOTHING_KEPT,
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
    vectors : PromptVectors
        Embeddings of the first prompts, from `grouping.prompt_vectors`.
    further : FurtherPrompts or None
        And of the others.
    strategy : str
        Name to record with the split: ``column=value``.
    seed : int
        Recorded with the split; nothing is drawn.
    threshold : float
        Smallest cosine of near-identical prompts; see `choose_grouping`.
    clustered : bool, optional
        Whether groups are clusters; see `divide`.
    kept : KeptDivisions
        Where groups and purged rows are kept that were found before.

    Returns
    -------
    Split
        A hold-out. Its groups, which inner folds keep whole, are those of the rows that are left.

    Raises
    ------
    UsageError
        If nothing is left to train on.
    """
    rows = np.flatnonzero(held)
    (near,) = kept.masks(
        ["near a test set", held.tobytes()],
        (1, len(held)),
        lambda: near_held(vectors, further, data.images, rows, threshold)[None] >= 0,
    )
    near &= ~held
    left = np.flatnonzero(~near)
    groups = np.arange(len(held)) + len(held)
    groups[left], clustered = divide(
        vectors.select(left),
        None if further is None else further.select(left),
        Texts.of(data.prompts.take(left)),
        Texts.of(data.images.take(left)),
        threshold,
        clustered=clustered,
        kept=kept.select(left),
    )
    if not clustered:
        # A cosine at the threshold may be rounded to either side.
        near |= ~held & np.isin(groups, groups[held])
    if (near | held).all():
        raise UsageError(
            f"`test`: every other row is near-identical to one with {strategy}, so none is left to train on",
            parameter="test",
        )
    fold = np.where(held, 0, np.where(near, PURGED, -1))
    return Split(strategy, seed, fold, groups, clustered=clustered, purging=True)
