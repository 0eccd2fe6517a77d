"""Ridge regression beside a network: the prediction is a mean of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.heads.ridge import Ridge

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Groups
    from img2prompt_cache.heads.neural.epochs import Sides
    from img2prompt_cache.heads.neural.pairs import Pairs
    from img2prompt_cache.heads.neural.settings import NetworkSettings

MIXES = tuple(step / 20 for step in range(21))
"""Weights of the network that are tried."""
FOLDS = 5
"""Number of grouped folds that the penalty is chosen on, at most."""


def mixes_of(head: NetworkSettings) -> tuple[float, ...]:
    """List the weights of the network to choose from: one if it is given, or if the epochs are."""
    if head.mix is not None:
        return (head.mix,)
    return MIXES if head.epochs is None else (1.0,)


def add_ridge(
    head: NetworkSettings, sides: Sequence[Sides[Pairs]], groups: Sequence[Groups]
) -> tuple[list[Sides[Pairs]], list[Ridge]]:
    """Fit ridge to the rows to train on of each pair of sides, and predict the rows held out from them.

    Its penalty, too, is chosen on the rows to train on alone, by grouped folds. So the rows that decide on
    epochs and mix have no influence on the ridge solution that they are compared with: were they among
    its rows, or chose its penalty, ridge would look better than it is on others, and the network worse.

    Parameters
    ----------
    head : NetworkSettings
    sides : sequence of Sides
    groups : sequence of numpy.ndarray, int64
        Of the rows to train on, for each pair of sides.

    Returns
    -------
    sides : list of Sides
    ridges : list of Ridge
        One for each pair of sides. None at all where the mix is the network alone, or is to be chosen but
        the rows of some side are one group, so that there are no folds.
    """
    if mixes_of(head) == (1.0,):
        return [*sides], []
    counts = [len(np.unique(own)) for own in groups]
    if head.mix is None and head.alpha is None and min(counts) < 2:
        return [*sides], []
    ridges = [
        Ridge(head.alpha, max(2, min(FOLDS, count)), seed=head.seed).fit(
            side.rows.X, side.rows.y, groups=own, widths=side.rows.widths or None
        )
        for side, own, count in zip(sides, groups, counts, strict=True)
    ]
    with_other = [
        side if side.held_out is None else replace(side, other=ridge.predict(side.held_out[0]))
        for side, ridge in zip(sides, ridges, strict=True)
    ]
    return with_other, ridges


def mean_penalty(ridges: Sequence[Ridge]) -> list[float] | None:
    """Give the geometric means of the penalties of several solutions, one for each block; None for none."""
    if len(ridges) < 2:  # the mean of one would differ in its last digit
        return ridges[0].alpha_.tolist() if ridges else None
    return [float(each) for each in np.exp(np.mean([np.log(ridge.alpha_) for ridge in ridges], axis=0))]
