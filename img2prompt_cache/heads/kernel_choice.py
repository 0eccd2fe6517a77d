"""What the kernel head chooses on grouped folds of its rows: gains, penalties, and whether to whiten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.numerics import kernel_ridge
from img2prompt_cache.numerics.bootstrap import standard_error
from img2prompt_cache.numerics.within_class import held_out_gain

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Features, Groups, Targets
    from img2prompt_cache.numerics.kernel_ridge import F64

MOST = 2048
"""Rows to choose on; beyond these a sample is drawn, so that choosing stays quick."""

FEWEST = 30
"""Images beyond the first of their prompts; fewer tell too little of what images of one prompt differ in."""


def drawn_rows(groups: Groups, kinds: Groups, folds: int, seed: int) -> tuple[Groups, Groups]:
    """Draw rows to choose settings on, and divide them into grouped folds.

    Parameters
    ----------
    groups, kinds : numpy.ndarray, int64, shape (n,)
    folds, seed : int

    Returns
    -------
    rows : numpy.ndarray, int64, shape (m,)
        Ascending; all where there are no more than `MOST`, else the same share of each fold.
    fold : numpy.ndarray, int64, shape (m,)
        Their folds; -1 for rows of other kinds than 0, which are never held out.
    """
    fold = np.full(len(groups), -1, np.int64)
    fold[kinds == 0] = k_folds(groups[kinds == 0], folds, seed)
    share = min(1.0, MOST / len(fold))
    rng = np.random.default_rng(seed)
    drawn = []
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        drawn.append(rng.permutation(rows)[: max(1, round(share * len(rows)))])
    chosen = np.sort(np.concatenate(drawn))
    return chosen, fold[chosen]


def prompt_numbers(y: Targets) -> Groups:
    """Number the distinct targets: images of one prompt have the same."""
    found: Groups = np.unique(y, axis=0, return_inverse=True)[1]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class ChoosingRows:
    """Rows to choose settings on.

    Attributes
    ----------
    units : numpy.ndarray, float32, shape (n, p)
        From `kernel_ridge.normalise_blocks`.
    y : numpy.ndarray, float32, shape (n, t)
        Unit targets.
    fold, groups, kinds : numpy.ndarray, int64, shape (n,)
        `fold` as `drawn_rows` gives it.
    widths : tuple of int
        Number of columns of each block.
    """

    units: Features
    y: Targets
    fold: Groups
    groups: Groups
    kinds: Groups
    widths: tuple[int, ...]

    def search(
        self, gains: F64 | None, alpha: F64 | None, note: Callable[[F64, F64, float], None]
    ) -> tuple[F64, F64]:
        """Choose what is None of gains and penalties; see `kernel_ridge.search`."""
        return kernel_ridge.search(
            self.units,
            self.y,
            self.fold,
            self.widths,
            gains=gains,
            alpha=alpha,
            kinds=self.kinds,
            on_evaluation=note,
        )

    def whitening_pays(self, gains: F64, alpha: F64) -> tuple[bool, dict[str, Any]]:
        """Whether to discount what differs between images of one prompt; see `numerics.within_class`.

        Returns
        -------
        pays : bool
            Whether the mean cosine of held-out rows rises by more than its standard error over groups.
        measured : dict
            That gain and error; empty where too few prompts have several images.
        """
        prompts = prompt_numbers(self.y)
        if len(prompts) - (prompts.max() + 1) < FEWEST:
            return False, {}
        rows = kernel_ridge.scale_blocks(self.units, self.widths, gains)
        true = self.y.astype(np.float64)
        gain = held_out_gain(
            rows @ rows.T, true, self.fold, self.kinds, prompts, total=float(gains.sum()), alpha=alpha
        )
        held = self.fold >= 0
        mean, error = float(gain[held].mean()), standard_error(gain[held], self.groups[held])
        return mean > error, {"whitening": {"gain": mean, "standard_error": error}}
