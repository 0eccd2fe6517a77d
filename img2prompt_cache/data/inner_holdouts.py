"""Inner hold-outs: rows set aside within the training rows, to choose settings on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.groups import renumber
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Mask = NDArray[np.bool_]

FOLDS = 3
"""Number of inner folds where there are too few rows for a single hold-out."""


def inner_holdouts(
    groups: Rows, seed: int, *, few: int, share: float, what: str, instead: str = ""
) -> list[Mask]:
    """Choose which of the training rows to hold out when something is chosen on them; groups stay whole.

    With many rows there is one hold-out. With few rows a single hold-out would be too noisy, so every row is
    held out once, in three folds.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (n,)
    seed : int
        Seed of the shuffle.
    few : int
        With fewer rows than this, use folds.
    share : float
        Share of the rows to hold out otherwise.
    what, instead : str
        For the error message: what is chosen, and what the user can do other than adding pairs.

    Returns
    -------
    list of numpy.ndarray, bool, shape (n,)
        One mask of the rows held out for each hold-out.

    Raises
    ------
    UsageError
        If all rows are one group.
    """
    folds = min(len(np.unique(groups)), FOLDS)
    if folds < 2:
        raise UsageError(
            f"{what} on rows that are held out, but all {len(groups)} are one group of "
            f"near-identical prompts or images; add pairs{instead}"
        )
    if len(groups) < few:
        fold = k_folds(groups, folds, seed)
        return [fold == number for number in range(folds)]
    return [hold_out_many(groups, share, seed)]


def hold_out_many(groups: Rows, share: float, seed: int) -> Mask:
    """Mark rows to hold out that are of many groups: those that fit into the share, in a random order.

    Something is chosen on these rows, and the more groups there are, the less it is chosen by chance. So
    groups larger than the share are left out, unlike in `hold_out`, where every row has to count.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (n,)
    share : float
        Of the rows, above 0 and below 1.
    seed : int
        Seed of the order.

    Returns
    -------
    numpy.ndarray, bool, shape (n,)
        Less than the share by less than the smallest group left; where every group is larger, the smallest.

    Raises
    ------
    UsageError
        If all rows are one group.
    """
    groups = renumber(groups)
    size = np.bincount(groups)
    if len(size) < 2:
        raise UsageError(
            f"cannot hold out rows: all {len(groups)} are one group of near-identical prompts or "
            "images; add pairs"
        )
    order = np.random.default_rng(seed).permutation(len(size))
    room = min(max(round(share * len(groups)), 1), len(groups) - 1)
    held = np.zeros(len(size), bool)
    for group in order.tolist():
        if size[group] <= room:
            held[group] = True
            room -= size[group]
    if not held.any():
        held[order[np.argmin(size[order])]] = True
    return held[groups]
