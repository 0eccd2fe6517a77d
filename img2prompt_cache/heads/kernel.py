"""The kernel head: kernel ridge with an exponential cosine kernel, its settings chosen on grouped folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import checks, kernel_choice
from img2prompt_cache.heads.base import Head, SureTargets
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.heads.space import LogUniform
from img2prompt_cache.numerics import gram, kernel_ridge
from img2prompt_cache.numerics.metrics import lengths, unit
from img2prompt_cache.numerics.neighbours import nearest_agreement
from img2prompt_cache.numerics.row_blocks import in_blocks
from img2prompt_cache.numerics.standardise import mean_and_scale
from img2prompt_cache.numerics.within_class import Normalisation, fit_normalisation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets
    from img2prompt_cache.numerics.kernel_ridge import F32, F64
    from img2prompt_cache.numerics.row_blocks import Matrix

EXACT = 10_000
"""Most rows that are fitted exactly; the kernel matrix of more would not fit in 1 GB."""
WHITENED = 4096
"""Most rows that are whitened, which takes a matrix as large as the kernel's at each prediction."""
WHITENING = ("members", "root", "projected", "lengths")
NEIGHBOURS = 10
"""Most similar rows whose targets are compared, to tell how sure a prediction is."""


class Kernel(Head):
    """Kernel ridge with k(a, b) = exp(Σ g (cos(a, b) − 1)), summed over backbones, on standardised features.

    Fitted exactly to 10,000 rows. Beyond, rows drawn by leverage serve as landmarks, and ridge is fitted on
    the Nyström features in one streaming pass, so that memory does not grow with the rows.
    """

    name = "kernel"
    joins = "blocks"
    streams = True
    shares = True
    takes_extra = True
    length_tells = True

    gain: float | Sequence[float] | None = setting(
        "How fast the kernel falls with cosine distance, or one value per backbone; chosen if absent.",
        default=None,
        search=LogUniform(*kernel_ridge.GAINS),
    )
    alpha: float | Sequence[float] | None = setting(
        "Penalty, as in scikit-learn's `KernelRidge`, or one per kind of rows; chosen if absent.",
        default=None,
        search=LogUniform(*kernel_ridge.ALPHAS),
    )
    whiten: bool | None = setting(
        "Discount what differs between images of one prompt; if absent, decided where settings are chosen.",
        default=None,
    )
    landmarks: int = setting("Number of landmarks where there are more than 10,000 rows.", default=4096)
    folds: int = setting("Number of grouped folds to choose the gains and the penalty on.", default=5)
    seed: int = setting("Seed of the folds, of the rows drawn to choose on, and of the landmarks.", default=0)

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Groups | None = None,
        widths: Sequence[int] | None = None,
        validation: tuple[Any, Any] | None = None,
        kinds: Any | None = None,
    ) -> Self:
        """Fit the head; see `Head.fit`.

        Parameters
        ----------
        X, y, groups, widths, validation
            As for every head.
        kinds : array-like of int, shape (n,), optional
            0 for rows like those that will be predicted, 1, 2, … for extra pairs of other kinds. Settings are
            chosen by the cosine on rows of kind 0; each kind has a penalty and a mean target of its own.

        Raises
        ------
        UsageError
            If a gain or a penalty is not above 0, or there are fewer groups than folds.
        DataError
            If an array cannot be used, or no row is of kind 0.
        """
        return self._check_and_fit(X, y, groups, widths, validation, kinds=kinds)

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
        kinds: Any | None = None,
    ) -> None:
        kinds = checks.kinds(kinds, len(X))
        gains = checks.one_per(self, "gain", len(widths), "backbones")
        alpha = checks.one_per(self, "alpha", int(kinds.max()) + 1, "kinds of rows")
        whiten = bool(self.whiten)
        if whiten and len(X) > WHITENED:
            raise UsageError(
                f"setting 'whiten' of head 'kernel' takes at most {WHITENED:,} rows; leave it out",
                parameter="whiten",
            )
        self.widths_ = np.array(widths, np.int64)
        self.mean_, self.scale_ = mean_and_scale(X, widths)
        self.tried_: list[dict[str, float]] = []
        self.targets_: NDArray[np.float16] | None = None
        self.whitening_: Normalisation | None = None
        self.measured_: dict[str, Any] = {}
        if gains is None or alpha is None:
            rows, fold = kernel_choice.drawn_rows(groups, kinds, self.folds, self.seed)
            chosen = kernel_choice.ChoosingRows(
                self._units(np.asarray(X[rows])),
                unit(np.asarray(y[rows])),
                fold,
                groups[rows],
                kinds[rows],
                widths,
            )
            gains, alpha = chosen.search(gains, alpha, self._note)
            if self.whiten is None and len(X) <= WHITENED:
                whiten, self.measured_ = chosen.whitening_pays(gains, alpha)
        self.gains_, self.alpha_ = gains, alpha
        if len(X) <= EXACT:
            X, y = np.asarray(X), np.asarray(y)
            mean, centred = kernel_ridge.centre_kinds(y.astype(np.float64), kinds)
            self.intercept_: F32 = mean.astype(np.float32)
            self.rows_, self.targets_ = self._scaled(X), unit(y).astype(np.float16)
            if whiten:
                products = self.rows_ @ self.rows_.T
                self.whitening_ = fit_normalisation(products, kernel_choice.prompt_numbers(y))
            dual = kernel_ridge.fit_exact(self._values(self.rows_), centred, alpha[kinds])
            self.dual_ = dual.astype(np.float32, order="C")
        else:
            landmarks = self._fit_landmarks(X, y, kinds)
            self.targets_ = unit(np.asarray(y[landmarks])).astype(np.float16)

    @property
    def signals(self) -> tuple[str, ...]:
        """`norm`, and `neighbours`: how far the targets of the most similar rows agree.

        Heads that were saved by earlier versions do not have the targets of their rows.
        """
        return ("norm",) if self.targets_ is None else ("norm", "neighbours")

    def _unscaled(self, X: Features) -> NDArray[Any]:
        pred = np.empty((len(X), self.dual_.shape[1]), np.float32)
        for rows, values in self._similarities(X):
            pred[rows] = values @ self.dual_
        pred += self.intercept_
        return pred

    def _predict_with_signals(self, X: Features) -> SureTargets:
        if self.targets_ is None:
            return super()._predict_with_signals(X)
        pred, agreement = np.empty((len(X), self.dual_.shape[1]), np.float32), np.empty(len(X))
        for rows, values in self._similarities(X):
            pred[rows] = values @ self.dual_
            agreement[rows] = nearest_agreement(values, self.targets_, NEIGHBOURS)
        pred += self.intercept_
        return SureTargets.of(unit(pred), {"norm": lengths(pred), "neighbours": agreement})

    def _similarities(self, X: Features) -> Iterator[tuple[slice, F32]]:
        """Compute the kernel values with the saved rows, some rows at a time."""
        for start in range(0, len(X), kernel_ridge.ROWS):
            rows = slice(start, start + kernel_ridge.ROWS)
            yield rows, self._values(self._scaled(X[rows]))

    def _values(self, scaled: F32) -> F32:
        """Compute the kernel values of rows with those fitted on."""
        if self.whitening_ is None:
            return kernel_ridge.kernel(scaled, self.rows_, self.gains_)
        squares = np.einsum("ij,ij->i", scaled, scaled)
        return self.whitening_.kernel(scaled @ self.rows_.T, squares, float(self.gains_.sum()))

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per setting tried: `gain 1`, `gain 2`, …, `alpha`, and `cosine`, the mean over folds.

        Where there are extra rows, `alpha` is followed by `alpha 1`, `alpha 2`, … of their kinds.
        """
        return self.tried_

    @property
    def chosen(self) -> dict[str, Any]:
        """The `gain` in use, a list where backbones are joined; `alpha`, where there are kinds; `whiten`."""
        whiten = self.whitening_ is not None
        return {"gain": _plain(self.gains_), "alpha": _plain(self.alpha_), "whiten": whiten}

    @property
    def measured(self) -> dict[str, Any]:
        """What `whitening` gains on held-out rows, with its standard error, where that was tried."""
        return self.measured_

    def state(self) -> State:
        """Give the scaled `rows` (m, p), their `dual` (m, t), and what it takes to scale new ones.

        Also their `targets` (m, t), float16, but for a head that was saved without them. Where the head
        whitens, also the arrays of the `Normalisation`.
        """
        whitening = self.whitening_
        more = {} if whitening is None else {name: getattr(whitening, name) for name in WHITENING}
        if self.targets_ is not None:
            more["targets"] = self.targets_
        return {
            **more,
            "rows": self.rows_,
            "dual": self.dual_,
            "intercept": self.intercept_,
            "mean": self.mean_,
            "scale": self.scale_,
            "blocks": self.widths_,
            "gain": self.gains_,
            "alpha": self.alpha_,
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
        self.alpha_ = checks.saved_array(state, "alpha", None)
        self.whitening_, self.measured_ = None, {}
        if "root" in state:
            k = len(checks.saved_array(state, "members", None))
            shapes = {"members": (k,), "root": (k, k), "projected": (m, k), "lengths": (m,)}
            arrays = {name: checks.saved_array(state, name, *shape) for name, shape in shapes.items()}
            if not ((arrays["members"] >= 0) & (arrays["members"] < m)).all():
                raise Img2PromptError("the saved head's 'members' are no rows of it; fit it again")
            self.whitening_ = Normalisation(**arrays)
        self.targets_ = None
        if "targets" in state:
            self.targets_ = checks.saved_array(state, "targets", *self.dual_.shape)
        if self.widths_.sum() != width:
            raise Img2PromptError(
                f"the saved head's 'blocks' sum to {self.widths_.sum()}, not {width}; fit it again"
            )
        self.tried_ = []
        return self

    def _check_settings(self) -> None:
        checks.require(self, "landmarks", self.landmarks >= 1, "at least 1")
        checks.positive(self, "gain")
        checks.positive(self, "alpha")

    def _note(self, gains: F64, alpha: F64, cosine: float) -> None:
        named = {f"gain {number}": float(gain) for number, gain in enumerate(gains, 1)}
        penalties = {f"alpha {kind}" if kind else "alpha": float(each) for kind, each in enumerate(alpha)}
        self.tried_.append({**named, **penalties, "cosine": cosine})

    def _units(self, X: Features) -> F32:
        return kernel_ridge.normalise_blocks((X - self.mean_) / self.scale_, self.widths_)

    def _scaled(self, X: Features) -> F32:
        return kernel_ridge.scale_blocks(self._units(X), self.widths_, self.gains_)

    def _fit_landmarks(self, X: Matrix, y: Matrix, kinds: Groups) -> Groups:
        """Fit on Nyström features; give the rows that are landmarks."""
        means, weight = kernel_ridge.means_of_kinds(y, kinds), self.alpha_[0] / self.alpha_
        # Leverages of more rows than these would change little: the sample is of the same distribution.
        pool = np.sort(np.random.default_rng(self.seed).permutation(len(X))[: 4 * max(EXACT, self.landmarks)])
        candidates = self._scaled(np.asarray(X[pool]))
        count = min(self.landmarks, len(pool))
        penalty = float(self.alpha_[0])
        picked = kernel_ridge.sample_landmarks(candidates, self.gains_, penalty, count, self.seed)
        self.rows_ = candidates[picked]
        del candidates
        root = kernel_ridge.nystroem_map(self.rows_, self.gains_)

        def chunks(part: slice) -> Iterator[gram.Rows]:
            own = kinds[part]
            for rows, (some, true) in in_blocks([X[part], y[part]], kernel_ridge.ROWS):
                features = kernel_ridge.kernel(self._scaled(some), self.rows_, self.gains_) @ root
                centred = (true - means[own[rows]]).astype(np.float32)
                yield gram.Rows(features, centred, np.zeros(len(some), np.int64), weight[own[rows]])

        (sums,) = gram.accumulate_parts(chunks, [X, y], 1)
        mean, coef, intercept = gram.solve(sums, np.ones(root.shape[1]), penalty)
        self.dual_ = root @ coef
        self.intercept_ = means[0].astype(np.float32) + intercept - mean @ coef
        found: Groups = pool[picked]
        return found


def _plain(values: F64) -> float | list[float]:
    """Give one value as a number, more as a list."""
    return float(values[0]) if len(values) == 1 else [float(value) for value in values]
