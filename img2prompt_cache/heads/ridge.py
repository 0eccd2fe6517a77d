"""The ridge head: a linear map in closed form, its penalty chosen on grouped folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache import gram, spectrum
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.metrics import unit
from img2prompt_cache.splits import k_folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets

ROWS = 4096
"""Rows taken at a time, so that float64 copies stay small."""

CHOICES = ("cosine", "mse")


class Ridge(Head):
    """Ridge regression, predictions scaled to length 1.

    Each backbone's features are first scaled, as one, to a total variance of 1. Where no penalty is given, 25
    are tried on grouped folds, and more beyond the end of the range while the best lies there.

    Parameters
    ----------
    alpha : float, optional
        Penalty on the scaled features, as in scikit-learn's `Ridge`.
    folds : int
        Folds to choose the penalty on.
    choose : str
        What the best penalty is best at: ``"cosine"``, or ``"mse"`` of predictions before normalisation.
    seed : int
        Of the folds.
    """

    name = "ridge"

    def __init__(
        self, alpha: float | None = None, folds: int = 5, choose: str = "cosine", seed: int = 0
    ) -> None:
        self.alpha = alpha
        self.folds = folds
        self.choose = choose
        self.seed = seed

    def fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups | None = None,
        blocks: tuple[int, ...] | None = None,
        validation: tuple[Features, Targets] | None = None,
    ) -> Self:
        """Fit the head; see `Head.fit`.

        Raises
        ------
        UsageError
            If the penalty is not above 0, `choose` is unknown, or there are fewer groups than folds.
        """
        if self.alpha is not None and not 0 < self.alpha < np.inf:
            raise UsageError(f"ridge needs a finite alpha > 0, not {self.alpha}")
        if self.choose not in CHOICES:
            raise unknown("value of ridge's setting 'choose'", self.choose, CHOICES)
        X, y, groups, blocks = checks.training(X, y, groups, blocks)
        if self.alpha is None:
            folds, fold = self.folds, k_folds(groups, self.folds, self.seed)
        else:
            folds, fold = 1, np.zeros(len(X), np.int64)

        def chunks() -> Iterator[gram.Chunk]:
            for start in range(0, len(X), ROWS):
                rows = slice(start, start + ROWS)
                yield X[rows], y[rows], fold[rows]

        by_fold = gram.accumulate(chunks(), folds)
        total = sum(by_fold[1:], start=by_fold[0])
        scale = gram.block_scale(total, blocks)
        self.tried_: list[dict[str, float]] = []
        if self.alpha is None:
            spectra = [spectrum.decompose(total - held, scale) for held in by_fold]
            self.tried_ = spectrum.search(chunks, spectra, len(X), self.choose)
        self.alpha_ = self.alpha or spectrum.best(self.tried_, self.choose)["alpha"]
        self.mean_, self.coef_, self.intercept_ = gram.solve(total, scale, self.alpha_)
        return self

    def predict(self, X: Features) -> Targets:
        """Predict unit-norm embeddings: float32, shape (n, t)."""
        X = checks.queries(X, len(self.mean_))
        return unit((X - self.mean_) @ self.coef_ + self.intercept_)

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per penalty tried: `alpha`, `cosine` and `mse`, means over folds."""
        return self.tried_

    @property
    def chosen(self) -> dict[str, Any]:
        """The penalty `alpha` in use."""
        return {"alpha": self.alpha_}

    def state(self) -> State:
        """Give `coef` (p, t), `mean` (p,), `intercept` (t,) and `alpha` (1,)."""
        return {
            "coef": self.coef_,
            "mean": self.mean_,
            "intercept": self.intercept_,
            "alpha": np.array([self.alpha_]),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self.coef_ = checks.take(state, "coef", None, None)
        self.mean_ = checks.take(state, "mean", self.coef_.shape[0])
        self.intercept_ = checks.take(state, "intercept", self.coef_.shape[1])
        self.alpha_ = float(checks.take(state, "alpha", 1)[0])
        self.tried_ = []
        return self
