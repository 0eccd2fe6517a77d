"""The nearest head: the prompt of the most similar training image. The baseline to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.heads import checks, neighbours
from img2prompt_cache.heads.neighbours import SEED, Neighbours
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.numerics.kernel_ridge import normalise_blocks
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.neighbour_gains import learn_gains
from img2prompt_cache.numerics.standardise import mean_and_scale

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Features, Groups, Targets
    from img2prompt_cache.numerics.neighbour_gains import F64
    from img2prompt_cache.numerics.row_blocks import Matrix

MAX_LEARNED = 2048
"""Rows the gains are learned on; beyond these a sample is drawn, so that learning takes seconds."""


class Nearest(Neighbours):
    """Predict the target of the training image with the most similar features, found by FAISS.

    Each column is standardised by the training rows, then each block of a row is scaled to length 1, so that
    similarity is a weighted mean of the blocks' cosines. The weights, gains, are learned on rows predicted
    from other groups. Training rows are kept in float16. Beyond 50,000 of them the search is approximate;
    `measured` gives its recall.
    """

    name = "nearest"
    streams = True

    gain: float | Sequence[float] | None = setting(
        "How much each block's cosine counts: one value per block, or one for all; learned if absent.",
        default=None,
        search=None,
    )

    def _check_settings(self) -> None:
        checks.positive(self, "gain")

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
    ) -> None:
        self.widths_ = np.array(widths, np.int64)
        self.mean_, self.scale_ = mean_and_scale(X, widths)
        self.targets_ = self._kept(y, unit, np.float32 if len(X) <= neighbours.EXACT else np.float16)
        given = checks.one_per(self, "gain", len(widths), "blocks")
        self.gains_ = self._learned(X, y, groups) if given is None else given
        self.vectors_ = self._kept(X, self._vectors, np.float16)
        self._search(X, groups, by_projections=True)

    @property
    def chosen(self) -> dict[str, Any]:
        """The `gain` of each block, with a mean of 1 where they were learned; nothing where there is one."""
        return {"gain": self.gains_.tolist()} if len(self.gains_) > 1 else {}

    def _learned(self, X: Matrix, y: Matrix, groups: Groups) -> F64:
        if len(self.widths_) == 1:
            return np.ones(1)
        rows = np.sort(np.random.default_rng(SEED).permutation(len(X))[:MAX_LEARNED])
        units = normalise_blocks((np.asarray(X[rows]) - self.mean_) / self.scale_, self.widths_)
        return learn_gains(units, unit(np.asarray(y[rows])), groups[rows], self.widths_)
