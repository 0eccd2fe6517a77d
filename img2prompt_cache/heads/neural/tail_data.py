"""Rows of a trunk to fine-tune a tail on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.heads.neural.epochs import Sides
from img2prompt_cache.heads.neural.finetuning import Finetuning
from img2prompt_cache.heads.neural.probe import Probes
from img2prompt_cache.heads.neural.tail_network import TailNetwork, pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Groups, Targets
    from img2prompt_cache.heads.neural.settings import FinetuneSettings
    from img2prompt_cache.heads.neural.tail_network import Inputs
    from img2prompt_cache.models.backbones.tail import TrainableTail

    RowNumbers = NDArray[np.int64]


class TailData:
    """Rows of a trunk, with the probe that the fine-tuning of a network on some of them starts from.

    Making it computes the pooled features of all rows and, if none is given, chooses the probe's penalty.

    Parameters
    ----------
    head : FinetuneSettings
    tail : TrainableTail
    X : numpy.ndarray or TrunkRows, shape (n, …)
        Values at the cut.
    y : numpy.ndarray, float32, shape (n, t)
    groups : numpy.ndarray, int64, shape (n,)

    Attributes
    ----------
    alpha : float
        Penalty of the probe.
    """

    def __init__(
        self, head: FinetuneSettings, tail: TrainableTail, X: Inputs, y: Targets, groups: Groups
    ) -> None:
        self._head, self._tail, self._X, self._y = head, tail, X, y
        network = TailNetwork(tail, y.shape[1], precision=head.precision, device=head.device)
        self._probes = Probes(pool(network, X), y)
        alpha = head.alpha
        self.alpha = float(
            self._probes.choose_alpha(groups, head.folds, head.seed) if alpha is None else alpha
        )

    def start(self, rows: RowNumbers) -> Finetuning:
        """Make a network that is to be fine-tuned on some rows."""
        probe = self._probes.fit(rows, self.alpha)
        loss = self._probes.loss(probe, rows)
        return Finetuning(self._head, self._tail, probe, self._X[rows], self._y[rows], loss)

    def sides(self, held_out: NDArray[np.bool_] | None = None) -> Sides[RowNumbers]:
        """Divide the rows into those to train on and those held out, if any are."""
        if held_out is None:
            return Sides(np.arange(len(self._y)))
        return Sides(np.flatnonzero(~held_out), (self._X[held_out], self._y[held_out]))
