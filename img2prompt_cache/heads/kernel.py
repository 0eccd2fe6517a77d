"""The kernel head: kernel ridge with an exponential cosine kernel, its settings chosen on grouped folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.heads.space import LogUniform
from img2prompt_cache.numerics import gram, kernel_ridge
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.standardise import mean_and_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets
    from img2prompt_cache.numerics.kernel_ridge import F32, F64

EXACT = 10_000
"""Most rows that are fitted exactly; the kernel matrix of more would not fit in 1 GB."""
MAX_CHOSEN = 2048
"""Rows the settings are chosen on; beyond these a sample is drawn, so that choosing stays quick."""


class Kernel(Head):
    """Kernel ridge with k(a, b) = exp(Σ g (cos(a, b) − 1)), summed over backbones, on standardised features.

    Fitted exactly to 10,000 rows. Beyond, rows drawn by leverage serve as landmarks, and ridge is fitted on
    the Nyström features in one streaming pass, so that memory does not grow with the rows.
    """

    name = "kernel"
    joins = "blocks"

    gain: float | Sequence[float] | None = setting(
        "How fast the kernel falls with cosine distance, or one value per backbone; chosen if absent.",
        default=None,
        search=LogUniform(*kernel_ridge.GAINS),
    )
    alpha: float | None = setting(
        "Penalty, as in scikit-learn's `KernelRidge`; chosen if absent.",
        default=None,
        search=LogUniform(*kernel_ridge.ALPHAS),
    )
    landmarks: int = setting("Number of landmarks where there are more than 10,000 rows.", default=4096)
    folds: int = setting("Number of grouped folds to choose the gains and the penalty on.", default=5)
    seed: int = setting("Seed of the folds, of the rows drawn to choose on, and of the landmarks.", default=0)

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
    ) -> None:
        gains = self._given(widths)
        self.widths_ = np.array(widths, np.int64)
        self.mean_, self.scale_ = mean_and_scale(X, widths)
        self.tried_: list[dict[str, float]] = []
        if gains is None or self.alpha is None:
            fold = k_folds(groups, self.folds, self.seed)
            rows = _sample(fold, MAX_CHOSEN, self.seed)
            gains, self.alpha_ = kernel_ridge.search(
                self._units(X[rows]),
                unit(y[rows]).astype(np.float64),
                fold[rows],
                widths,
                gains=gains,
                alpha=self.alpha,
                on_evaluation=self._note,
            )
        else:
            self.alpha_ = self.alpha
        self.gains_ = gains
        if len(X) <= EXACT:
            mean = y.mean(axis=0, dtype=np.float64)
            self.rows_, self.intercept_ = self._scaled(X), mean.astype(np.float32)
            dual = kernel_ridge.fit_exact(self.rows_, y - mean, gains, self.alpha_)
            self.dual_ = dual.astype(np.float32, order="C")
        else:
            self._fit_landmarks(X, y)

    def _predict(self, X: Features) -> Targets:
        pred = np.empty((len(X), self.dual_.shape[1]), np.float32)
        for start in range(0, len(X), kernel_ridge.ROWS):
            rows = slice(start, start + kernel_ridge.ROWS)
            pred[rows] = kernel_ridge.kernel(self._scaled(X[rows]), self.rows_, self.gains_) @ self.dual_
        return unit(pred + self.intercept_)

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per setting tried: `gain 1`, `gain 2`, …, `alpha`, and `cosine`, the mean over folds."""
        return self.tried_

    @property
    def chosen(self) -> dict[str, Any]:
        """The `gain` in use, a list where backbones are joined, and the penalty `alpha`."""
        gain = float(self.gains_[0]) if len(self.gains_) == 1 else self.gains_.tolist()
        return {"gain": gain, "alpha": self.alpha_}

    def state(self) -> State:
        """Give the scaled `rows` (m, p) and their `dual` (m, t), with what it takes to scale new ones."""
        return {
            "rows": self.rows_,
            "dual": self.dual_,
            "intercept": self.intercept_,
            "mean": self.mean_,
            "scale": self.scale_,
            "blocks": self.widths_,
            "gain": self.gains_,
            "alpha": np.array([self.alpha_]),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self.rows_ = checks.saved_array(state, "rows", None, None)
        m, width = self.rows_.shape
        self.n_features_in_ = width
        self.dual_ = checks.saved_array(state, "dual", m, None)
        self.intercept_ = checks.saved_array(state, "intercept", self.dual_.shape[1])
        self.mean_ = checks.saved_array(state, "mean", width)
        self.scale_ = checks.saved_array(state, "scale", width)
        self.widths_ = checks.saved_array(state, "blocks", None)
        self.gains_ = checks.saved_array(state, "gain", len(self.widths_))
        self.alpha_ = float(checks.saved_array(state, "alpha", 1)[0])
        if self.widths_.sum() != width:
            raise Img2PromptError(
                f"the saved head's 'blocks' sum to {self.widths_.sum()}, not {width}; fit it again"
            )
        self.tried_ = []
        return self

    def _check_settings(self) -> None:
        checks.require(self, "landmarks", self.landmarks >= 1, "at least 1")
        fits = self.alpha is None or 0 < self.alpha < np.inf
        checks.require(self, "alpha", fits, "finite and above 0")

    def _given(self, widths: tuple[int, ...]) -> F64 | None:
        if self.gain is None:
            return None
        gains = np.atleast_1d(np.asarray(self.gain, np.float64))
        checks.require(self, "gain", bool(((gains > 0) & (gains < np.inf)).all()), "finite and above 0")
        wanted = f"one number, or one for each of {len(widths)} backbones"
        checks.require(self, "gain", len(gains) in (1, len(widths)), wanted)
        return np.broadcast_to(gains, len(widths)).copy()

    def _note(self, gains: F64, alpha: float, cosine: float) -> None:
        named = {f"gain {number}": float(gain) for number, gain in enumerate(gains, 1)}
        self.tried_.append({**named, "alpha": alpha, "cosine": cosine})

    def _units(self, X: Features) -> F32:
        return kernel_ridge.normalise_blocks((X - self.mean_) / self.scale_, self.widths_)

    def _scaled(self, X: Features) -> F32:
        return kernel_ridge.scale_blocks(self._units(X), self.widths_, self.gains_)

    def _fit_landmarks(self, X: Features, y: Targets) -> None:
        # Leverages of more rows than these would change little: the sample is of the same distribution.
        pool = np.sort(np.random.default_rng(self.seed).permutation(len(X))[: 4 * max(EXACT, self.landmarks)])
        candidates = self._scaled(X[pool])
        count = min(self.landmarks, len(pool))
        picked = kernel_ridge.sample_landmarks(candidates, self.gains_, self.alpha_, count, self.seed)
        self.rows_ = candidates[picked]
        del candidates
        root = kernel_ridge.nystroem_map(self.rows_, self.gains_)

        def chunks() -> Iterator[gram.Rows]:
            for start in range(0, len(X), kernel_ridge.ROWS):
                rows = slice(start, start + kernel_ridge.ROWS)
                features = kernel_ridge.kernel(self._scaled(X[rows]), self.rows_, self.gains_) @ root
                yield gram.Rows(features, y[rows], np.zeros(len(features), np.int64))

        (sums,) = gram.accumulate(chunks(), 1)
        mean, coef, intercept = gram.solve(sums, np.ones(root.shape[1]), self.alpha_)
        self.dual_ = root @ coef
        self.intercept_ = intercept - mean @ coef


def _sample(fold: Groups, most: int, seed: int) -> Groups:
    """Draw about `most` rows, ascending, the same share of each fold; all where there are no more."""
    share = min(1.0, most / len(fold))
    rng = np.random.default_rng(seed)
    drawn = []
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        drawn.append(rng.permutation(rows)[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(drawn))
