"""Turns: rows held out, one lot after the other, where something is chosen on the rows fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.splits import hold_out, k_folds
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Mask = NDArray[np.bool_]

TURNS = 3
"""Folds that few rows are held out in, one after the other, where something is chosen."""


def held_in_turn(
    groups: Rows, seed: int, *, few: int, share: float, what: str, instead: str = ""
) -> list[Mask]:
    """Mark the rows to hold out when something is chosen on the rows fitted on, whole groups of them.

    One hold-out of few rows tells little, so those are held out in turn, in three folds.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (n,)
    seed : int
        Of the shuffle.
    few : int
        With fewer rows than this there are folds.
    share : float
        Of the rows, to hold out where there are more.
    what, instead : str
        What is chosen, and what to do besides adding pairs, for the message.

    Returns
    -------
    list of numpy.ndarray, bool, shape (n,)
        One for each turn.

    Raises
    ------
    UsageError
        If all rows are one group.
    """
    folds = min(len(np.unique(groups)), TURNS)
    if folds < 2:
        raise UsageError(
            f"{what} on rows that are held out, but all {len(groups)} are one group of "
            f"near-identical prompts or images; add pairs{instead}"
        )
    if len(groups) < few:
        fold = k_folds(groups, folds, seed)
        return [fold == number for number in range(folds)]
    held = np.zeros(len(groups), bool)
    held[hold_out(groups, share, seed).validation] = True
    return [held]
