"""A scikit-learn regressor of unit vectors, whose settings and arguments are checked in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.settings import make_constructor, setting
from img2prompt_cache.numerics.metrics import mean_cosine

if TYPE_CHECKING:
    from img2prompt_cache.heads.checks import Groups, Targets


@dataclass_transform(eq_default=False, field_specifiers=(setting,))
class VectorRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor whose predictions are vectors of length 1.

    A subclass declares its settings as fields, like ``folds: int = setting("Number of folds.", default=5)``.
    They become the arguments of its constructor, stored under their own names (scikit-learn's rule), so
    `get_params` and `clone` work; in every further subclass, too. Fitted values are attributes that end in an
    underscore.

    `fit` and `predict` check their arguments. A subclass computes in `_fit` and `_predict`. Where its class
    says that it `streams`, `_fit` also takes `ColumnRows` in the place of the features and the targets.
    """

    name: ClassVar[str]
    n_features_in_: int

    @property
    def streams(self) -> bool:
        """Whether `fit` also takes `ColumnRows`, which it reads block by block: memory need not hold them."""
        return False

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
        return self._predict(self._checked(X))

    def score(self, X: Any, y: Any) -> float:
        """Mean cosine similarity between `predict(X)` and `y`."""
        return mean_cosine(self.predict(X), checks.targets(y, self))

    def _checked(self, X: Any) -> Any:
        """Check that the head is fitted, and features to predict from; give them converted."""
        check_is_fitted(self)
        X = self._check_inputs(X)
        checks.same_width(X, self)
        return X

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
        if not self.streams and isinstance(y, ColumnRows):
            y = np.asarray(y)
        if not (self.streams and isinstance(X, ColumnRows)):  # what is read later is checked then
            X = self._check_inputs(X)
        y, groups, widths = checks.rows(X, y, groups, widths, self)
        if validation is not None:
            held = self._check_inputs(validation[0])
            validation = held, checks.more_rows(held, validation[1], (X, y), self)
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
        """Fit; the arguments of `fit` are checked, and none but `validation` is absent."""
        raise NotImplementedError

    def _predict(self, X: Any) -> Targets:
        """Predict from checked features."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that targets are matrices."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags
