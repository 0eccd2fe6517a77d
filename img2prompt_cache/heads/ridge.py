"""The ridge head: a linear map in closed form, its penalties chosen on grouped folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import DataError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.heads.space import LogUniform
from img2prompt_cache.numerics import banded_ridge, gram, ridge_path
from img2prompt_cache.numerics.row_blocks import in_blocks
from img2prompt_cache.numerics.row_space import expand_coefficients, reduce_blocks
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets
    from img2prompt_cache.numerics.gram import F32, F64, Rows, Sums
    from img2prompt_cache.numerics.row_blocks import Matrix

    Chunks = Callable[[], Iterable[Rows]]
    Accumulate = Callable[[int], list[Sums]]
    Project = Callable[[list[ridge_path.RidgePath]], ridge_path.Projected]

CHOICES = ("cosine", "mse")


class Ridge(Head):
    """Ridge regression, predictions scaled to length 1.

    Each backbone's features are first scaled, as one, to a total variance of 1. Where no penalty is given, it
    is chosen on grouped folds. Where backbones are joined each gets its own: their ratios by squared error,
    then all together by `choose`.
    """

    name = "ridge"
    streams = True
    shares = True
    length_tells = True

    alpha: float | Sequence[float] | None = setting(
        "Penalty on the scaled features, as in scikit-learn, or one per backbone; chosen if absent.",
        default=None,
        search=LogUniform(1e-3, 1e5),
    )
    folds: int = setting("Number of grouped folds to choose the penalty on.", default=5)
    choose: str = setting(
        'What the penalty is chosen by: "cosine", or "mse" of predictions before normalisation.',
        default="cosine",
    )
    seed: int = setting("Seed of the folds, and of the rows drawn to compare cosines on.", default=0)

    @property
    def random(self) -> bool:
        """The seed divides the inner folds: a penalty that is given is not chosen on any."""
        return self.alpha is None

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Groups | None = None,
        widths: Sequence[int] | None = None,
        validation: tuple[Any, Any] | None = None,
        sample_weight: Any | None = None,
    ) -> Self:
        """Fit the head; see `Head.fit`.

        Parameters
        ----------
        X, y, groups, widths, validation
            As for every head.
        sample_weight : array-like, shape (n,), optional
            How much each row counts, in fitting and in choosing; at least 0.

        Raises
        ------
        UsageError
            If a penalty is not above 0, `choose` is unknown, or there are fewer groups than folds.
        DataError
            If an array cannot be used, or a weight is negative, or all are zero.
        """
        return self._check_and_fit(X, y, groups, widths, validation, sample_weight=sample_weight)

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
        sample_weight: Any | None = None,
    ) -> None:
        weight = None if sample_weight is None else _weights(sample_weight, len(X))
        if weight is not None and not weight.all():  # a row of weight 0 has no say in choosing either
            counts = weight > 0
            X, y, groups, weight = X[counts], y[counts], groups[counts], weight[counts]
        fold = (
            np.zeros(len(X), np.int64) if self.alpha is not None else k_folds(groups, self.folds, self.seed)
        )

        Z: Matrix = X
        bases: list[F32 | None] = [None] * len(widths)
        reduced, mean = widths, np.zeros(X.shape[1], np.float32)
        if len(X) < max(widths):
            Z, reduced, bases, mean = reduce_blocks(np.asarray(X), widths)

        def chunks(part: slice) -> Iterator[gram.Rows]:
            own, weights = fold[part], None if weight is None else weight[part]
            for some, (x, true) in in_blocks([Z[part], y[part]]):
                yield gram.Rows(x, true, own[some], None if weights is None else weights[some])

        self._fit_passes(
            lambda folds: gram.accumulate_parts(chunks, [Z, y], folds),
            lambda paths: ridge_path.project_parts(chunks, [Z, y], paths, self.seed),
            reduced,
        )
        self.coef_: F32 = expand_coefficients(self.coef_, reduced, bases)
        self.mean_: F32 = mean + expand_coefficients(self.mean_[:, None], reduced, bases)[:, 0]

    def fit_stream(self, chunks: Chunks, n: int, widths: tuple[int, ...]) -> Self:
        """Fit on rows that need not fit in memory.

        Parameters
        ----------
        chunks : callable
            Gives the rows anew at each call, as `gram.Rows` of float16 or float32; it is called twice. Fold
            numbers are 0…`folds`−1; with a given penalty all 0.
        n : int
            How many rows there are.
        widths : tuple of int
            Number of features of each backbone, summing to p.

        Raises
        ------
        UsageError
            If a penalty is not above 0, or `choose` is unknown.
        Img2PromptError
            If a value is not finite.
        """
        return self._fit_passes(
            lambda folds: gram.accumulate(chunks(), folds),
            lambda paths: ridge_path.project(chunks(), paths, n, self.seed),
            widths,
        )

    def _fit_passes(self, accumulate: Accumulate, project: Project, widths: tuple[int, ...]) -> Self:
        """Fit by two passes over the rows: sums of each fold, then held-out rows in the basis of each."""
        checks.positive(self, "alpha")
        alpha = checks.one_per(self, "alpha", len(widths), "backbones")
        checks.require_one_of(self, "choose", CHOICES)
        by_fold = accumulate(self.folds if alpha is None else 1)
        total = reduce(add, by_fold)
        scale = gram.block_scale(total, widths)
        self.tried_: list[dict[str, float]] = []
        if alpha is None:
            alpha = self._chosen(project, by_fold, total, scale, widths)
        self.alpha_ = alpha
        self.n_features_in_ = sum(widths)
        self.mean_, self.coef_, self.intercept_ = gram.solve(total, scale, np.repeat(alpha, widths))
        return self

    def _unscaled(self, X: Features) -> NDArray[Any]:
        found: NDArray[Any] = (X - self.mean_) @ self.coef_ + self.intercept_
        return found

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per penalty: `alpha`, `mse`, and `cosine` of those that were looked at closely.

        Means over folds. Where backbones are joined, `alpha` is the geometric mean of their penalties.
        """
        return self.tried_

    @property
    def chosen(self) -> dict[str, Any]:
        """The penalty `alpha` in use, a list where backbones are joined."""
        return {"alpha": float(self.alpha_[0]) if len(self.alpha_) == 1 else self.alpha_.tolist()}

    def state(self) -> State:
        """Give `coef` (p, t), `mean` (p,), `intercept` (t,) and `alpha`, one per backbone."""
        return {"coef": self.coef_, "mean": self.mean_, "intercept": self.intercept_, "alpha": self.alpha_}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self.coef_ = checks.saved_array(state, "coef", None, None)
        self.n_features_in_ = self.coef_.shape[0]
        self.mean_ = checks.saved_array(state, "mean", self.n_features_in_)
        self.intercept_ = checks.saved_array(state, "intercept", self.coef_.shape[1])
        self.alpha_ = checks.saved_array(state, "alpha", None)
        self.tried_ = []
        return self

    def _chosen(
        self, project: Project, by_fold: list[Sums], total: Sums, scale: F64, widths: tuple[int, ...]
    ) -> F64:
        ratios = banded_ridge.penalty_ratios(by_fold, scale, widths)
        alphas = ridge_path.penalties(total.n)
        banded = scale / np.sqrt(np.repeat(ratios, widths))
        spectra = []
        with stage("eigenvectors of each fold", len(by_fold)) as advance:
            for held in by_fold:
                spectra.append(ridge_path.decompose(total, held, banded, alphas))
                advance(1)
        mse: F64 = np.mean([each.mse for each in spectra], axis=0)
        if self.choose == "mse":
            self.tried_ = [{"alpha": float(a), "mse": float(e)} for a, e in zip(alphas, mse, strict=True)]
            best = ridge_path.argmin_error(mse)
            return ratios * float(alphas[best])
        projected = project(spectra)
        best, cosines = ridge_path.hill_climb(
            ridge_path.argmin_error(mse),
            len(mse),
            lambda index: ridge_path.held_out_cosine(projected, spectra, alphas[index]),
        )
        self.tried_ = [
            {"alpha": float(alpha), "mse": float(error)}
            | ({"cosine": cosines[index]} if index in cosines else {})
            for index, (alpha, error) in enumerate(zip(alphas, mse, strict=True))
        ]
        return ratios * float(alphas[best])


def _weights(sample_weight: Any, n: int) -> F64:
    """Check the weights of n rows, and give them as float64."""
    weight = np.asarray(sample_weight, np.float64)
    if weight.shape != (n,) or not np.isfinite(weight).all() or weight.min() < 0:
        raise DataError(f"`sample_weight` must be {n} finite numbers, one for each row, and at least 0")
    if not weight.any():
        raise DataError("all of `sample_weight` are zero; at least one row must count")
    return weight
