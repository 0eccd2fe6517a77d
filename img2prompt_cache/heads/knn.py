"""The knn head: an average of the nearest training images' targets, weighted by distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.nearest import Nearest
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.heads.space import Choices, Uniform
from img2prompt_cache.numerics.disk_array import take_rows
from img2prompt_cache.numerics.metrics import mean_cosine
from img2prompt_cache.numerics.neighbours import flat_index, gather, inverse_power, nearest, weighted_sum
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets

KS = (5, 10, 20, 40, 80, 160)
POWERS = (0.0, 2.0, 4.0, 6.0, 8.0)
MAX_QUERIES = 4096
"""Rows that choose k and the power; beyond these a sample is drawn, so that choosing stays quick."""


class Knn(Nearest):
    """Predict the mean target of the k nearest training images, weighted 1/distance**power.

    Similarity is that of `Nearest`, with its gains. Where k or the power is not given, the pair with the best
    mean cosine on grouped folds of the training rows is chosen.
    """

    name = "knn"
    length_tells = True

    k: int | None = setting("Number of neighbours; chosen if absent.", default=None, search=Choices(KS))
    power: float | None = setting(
        "How fast the weight falls with cosine distance, 0 for equal weights; chosen if absent.",
        default=None,
        search=Uniform(0.0, 8.0),
    )
    folds: int = setting("Number of grouped folds to choose `k` and `power` on.", default=5)
    seed: int = setting("Seed of the folds, and of the rows drawn to choose on.", default=0)

    @property
    def random(self) -> bool:
        """The seed divides the inner folds: settings that are given are not chosen on any."""
        return self.k is None or self.power is None

    def _check_settings(self) -> None:
        super()._check_settings()
        checks.require(self, "k", self.k is None or self.k >= 1, "at least 1")
        checks.require(self, "power", self.power is None or 0 <= self.power < np.inf, "finite and at least 0")

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
    ) -> None:
        super()._fit(X, y, groups=groups, widths=widths)
        if self.k is not None and self.power is not None:
            self.tried_, self.k_, self.power_ = [], self.k, self.power
            return
        self.tried_ = self._try(y, k_folds(groups, self.folds, self.seed))
        best = max(self.tried_, key=lambda record: record["cosine"])
        self.k_, self.power_ = int(best["k"]), best["power"]

    def _unscaled(self, X: Features) -> Targets:
        return self._average(X, self.k_, self.power_)

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per pair tried: `k`, `power`, and `cosine`, the mean over folds."""
        return self.tried_

    @property
    def chosen(self) -> dict[str, Any]:
        """The `gain` of each block where there are several, and the `k` and `power` in use."""
        return {**super().chosen, "k": self.k_, "power": self.power_}

    def state(self) -> State:
        """Give the training rows as `Nearest` does, with `k` (1,) and `power` (1,)."""
        return {**super().state(), "k": np.array([self.k_]), "power": np.array([self.power_])}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self.k_ = int(checks.saved_array(state, "k", 1)[0])
        self.power_ = float(checks.saved_array(state, "power", 1)[0])
        if self.k_ < 1:
            raise Img2PromptError(f"the saved head's 'k' is {self.k_}, not 1 or more; fit it again")
        self.tried_ = []
        return super().load_state(state)

    def _try(self, y: Targets, fold: Groups) -> list[dict[str, float]]:
        ks = KS if self.k is None else (self.k,)
        powers = POWERS if self.power is None else (self.power,)
        drawn = _draw(fold, self.folds, self.seed)
        found = np.zeros((self.folds, len(ks), len(powers)))
        with stage("number of neighbours", self.folds) as advance:
            for number in range(self.folds):
                known, asked = fold != number, (fold == number) & drawn
                queries = take_rows(self.vectors_, np.flatnonzero(asked)).astype(np.float32)
                distances, rows = self._neighbours(known, queries, max(ks))
                (place, values), true = gather(rows, self.targets_), np.asarray(y[asked])
                for i, k in enumerate(ks):
                    for j, power in enumerate(powers):
                        weights = inverse_power(distances[:, :k], power)
                        pred = weighted_sum(weights, place[:, :k], values)
                        found[number, i, j] = mean_cosine(pred, true)
                advance(1)
        mean = found.mean(axis=0)
        return [
            {"k": k, "power": power, "cosine": float(mean[i, j])}
            for i, k in enumerate(ks)
            for j, power in enumerate(powers)
        ]

    def _neighbours(
        self, known: NDArray[np.bool_], queries: Features, k: int
    ) -> tuple[Features, NDArray[np.int64]]:
        """Find neighbours among the rows that a fold knows; what is drawn for it shares the index of all."""
        if self.cells_ is not None or self.projected_ is not None:
            return self._nearest(queries, k, among=known)
        # FAISS multiplies whole matrices only where there is nothing to leave out.
        distances, at = nearest(flat_index(self.vectors_[known].astype(np.float32)), queries, k)
        return distances, np.flatnonzero(known)[at]


def _draw(fold: Groups, folds: int, seed: int) -> NDArray[np.bool_]:
    """Draw the rows that k and the power are chosen on, at least one of each fold.

    A fold that is small beside a large group may have no row among the first `MAX_QUERIES` that are drawn;
    the mean over its rows would be no number, and so would the mean over folds for every k.
    """
    rank = np.random.default_rng(seed).permutation(len(fold))
    drawn = rank < MAX_QUERIES
    for number in range(folds):
        rows = np.flatnonzero(fold == number)
        drawn[rows[np.argmin(rank[rows])]] = True
    return drawn
