"""What every head is: a scikit-learn estimator whose predictions are unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from img2prompt_cache.cache.manifest import Kind
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.settings import make_constructor, setting, settings_declared
from img2prompt_cache.numerics.metrics import cosine, mean_cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.backbones.taps import Described

    Features = NDArray[np.float32]
    Targets = NDArray[np.float32]
    Groups = NDArray[np.int64]
    State = dict[str, NDArray[Any]]
    OnStep = Callable[[int, float], None]


@dataclass_transform(eq_default=False, field_specifiers=(setting,))
class Head(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor from cached features to the target embedding.

    A head declares its settings as fields, like ``folds: int = setting("Number of folds.", default=5)``.
    They become the arguments of its constructor, stored under their own names (scikit-learn's rule), so
    `get_params` and `clone` work; in every subclass, too. Fitted values are attributes that end in an
    underscore.

    Heads that compute with torch also take `device`. It is not a setting: it says where they compute.

    `fit` and `predict` check their arguments, once for all heads. A head computes in `_fit` and `_predict`.

    Class attributes
    ----------------
    name : str
        What `fit --head` calls it.
    takes : str
        The kind of columns it is fitted on: ``"features"`` of any number of backbones, joined; or one
        ``"trunk"``, whose rows it gets as `trunkrows.TrunkRows` in the place of an array.
    texts : bool
        Whether `fit` also takes `texts`, the embedding of each prompt by the text tower of the one backbone.
    costly : bool
        Whether fitting is slow, so that the leakage gap, a second fit, is measured only if asked for.
    prefers : mapping of str to str
        For a head of one backbone: what it is made for, then what may stand in for that, each by name with a
        regular expression that finds it in a column's spec. Empty: the head takes every cached one, joined.
    warm_up : int
        First steps of `validate` whose score says little about the last one's.
    """

    name: ClassVar[str]
    texts: ClassVar[bool] = False
    takes: ClassVar[Kind] = "features"
    costly: ClassVar[bool] = False
    prefers: ClassVar[Mapping[str, str]] = {}
    warm_up: ClassVar[int] = 0

    n_features_in_: int

    def __init_subclass__(cls, **options: Any) -> None:
        """Make the constructor of the settings."""
        super().__init_subclass__(**options)
        make_constructor(cls)

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Groups | None = None,
        widths: Sequence[int] | None = None,
        validation: tuple[Any, Any] | None = None,
    ) -> Self:
        """Fit the head.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Features of one or more backbones, concatenated: one row per pair. Computed with as float32.
        y : array-like, shape (n, t)
            Unit-norm targets.
        groups : array-like of int, shape (n,), optional
            Rows of one group are never on both sides of an inner split. Each row is its own group if absent.
        widths : sequence of int, optional
            Number of features of each backbone, summing to p. All are of one backbone if absent.
        validation : pair of array-like, optional
            Features and targets watched for early stopping; heads that do not stop early ignore it.

        Raises
        ------
        DataError
            If the arrays do not fit each other, have no rows, or hold a value that is not finite in float32.
        UsageError
            If a setting is out of range.
        TypeError
            If an array is sparse, or an element is no number.
        """
        return self._check_and_fit(X, y, groups, widths, validation)

    def predict(self, X: Any) -> Targets:
        """Predict embeddings.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Features as in `fit`.

        Returns
        -------
        numpy.ndarray, float32, shape (n, t)
            Of unit norm.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the head is not fitted.
        DataError
            If the number of features is not that of `fit`, or a value is not finite in float32.
        """
        check_is_fitted(self)
        X = self._check_inputs(X)
        checks.same_width(X, self)
        return self._predict(X)

    def score(self, X: Any, y: Any) -> float:
        """Mean cosine similarity between `predict(X)` and `y`."""
        return mean_cosine(self.predict(X), checks.targets(y, self))

    def _check_and_fit(
        self,
        X: Any,
        y: Any,
        groups: Groups | None,
        widths: Sequence[int] | None,
        validation: tuple[Any, Any] | None,
        **more: Any,
    ) -> Self:
        """Check the arguments of `fit`, then fit; `more` are those that only this head takes."""
        self._check_settings()
        X = self._check_inputs(X)
        y, groups, widths = checks.rows(X, y, groups, widths, self)
        if validation is not None:
            held = self._check_inputs(validation[0])
            validation = held, checks.rows(held, validation[1], None, None, self)[0]
        self._fit(X, y, groups=groups, widths=widths, validation=validation, **more)
        self.n_features_in_ = sum(widths)
        return self

    def _check_settings(self) -> None:
        """Check the settings that can be checked without data.

        Raises
        ------
        UsageError
            Naming the setting that is out of range.
        """

    def _check_inputs(self, X: Any) -> Any:
        """Check features, and convert them to what `_fit` and `_predict` compute with."""
        return checks.features(X, self)

    def _fit(
        self,
        X: Any,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Any, Targets] | None,
    ) -> None:
        """Fit to checked arguments of `fit`, none of them absent but `validation`."""
        raise NotImplementedError

    def _predict(self, X: Any) -> Targets:
        """Predict from checked features."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that targets are matrices, and whether features are."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        tags.input_tags.two_d_array = self.takes == "features"
        return tags

    def validate(
        self,
        X: Any,
        y: Targets,
        held: Sequence[NDArray[np.bool_]],
        *,
        groups: Groups,
        widths: tuple[int, ...],
        on_step: OnStep | None = None,
    ) -> float:
        """Score these settings: mean cosine on rows held out in turns, by clones fitted on the rest.

        Parameters
        ----------
        X, y, groups, widths
            As for `fit`.
        held : sequence of numpy.ndarray, bool, shape (n,)
            Marks the rows held out, in each turn.
        on_step : callable, optional
            Called with the number of a step, from 0, and the score so far; what it raises ends the work.

        Raises
        ------
        Img2PromptError
            If a prediction is not finite.
        """
        cosines: list[NDArray[np.float64]] = []
        for turn, out in enumerate(held):
            head = clone(self).fit(X[~out], y[~out], groups=groups[~out], widths=widths)
            predictions = head.predict(X[out])
            if not np.isfinite(predictions).all():
                raise Img2PromptError(f"{self.name} predicts NaN or infinity with these settings")
            cosines.append(cosine(predictions, y[out]))
            if on_step and turn < len(held) - 1:
                on_step(turn, float(np.mean(np.concatenate(cosines))))
        return float(np.mean(np.concatenate(cosines)))

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor that decide what is computed: all but `device`. A run records them."""
        declared = settings_declared(type(self))
        return {name: value for name, value in self.get_params().items() if declared[name].recorded}

    def use_device(self, device: str) -> Self:
        """Fit and predict on a device from now on; a head that does not compute with torch stays on the CPU.

        Parameters
        ----------
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        """
        return self.set_params(device=device) if "device" in self.get_params() else self

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per epoch, or per penalty tried: the rows of `history.csv`. Empty where none is kept."""
        return []

    @property
    def chosen(self) -> dict[str, Any]:
        """Settings that fitting chose (penalty, k, epochs): JSON values, arguments of the constructor.

        `clone(head).set_params(**head.chosen)` fits the same thing again on other rows without choosing anew.
        """
        return {}

    @property
    def measured(self) -> dict[str, Any]:
        """What fitting found out about itself, for `run.json`: JSON values, such as an index's recall."""
        return {}

    def bind(self, columns: Sequence[Described]) -> Self:
        """Get ready for rows of these columns, before `load_state`; fitting does so by itself.

        Most heads know all they need from their arrays.
        """
        return self

    def state(self) -> State:
        """Give the fitted arrays, for `head.safetensors`; C-contiguous, names without spaces."""
        raise NotImplementedError

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back; the settings were given to the constructor.

        Raises
        ------
        Img2PromptError
            If an array is missing or its shape does not fit the others.
        """
        raise NotImplementedError
