"""The mean head: the same vector for every image. The floor that every table shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.base import Head
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.row_blocks import mean_of_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets


class Mean(Head):
    """Predict the normalised mean training target, whatever the image: the best constant by cosine."""

    name = "mean"
    streams = True
    shares = True
    reads_features = False

    def _check_inputs(self, X: Any) -> Any:
        """Check features, unless they are rows of columns: nothing is read of these."""
        return X if isinstance(X, ColumnRows) else super()._check_inputs(X)

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
    ) -> None:
        self.mean_ = unit(mean_of_rows(y))

    def _predict(self, X: Features) -> Targets:
        return np.repeat(self.mean_, len(X), axis=0)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that a constant scores poorly, as it should."""
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags

    def state(self) -> State:
        """Give `mean` (1, t) and `width`, the number of features."""
        return {"mean": self.mean_, "width": np.array([self.n_features_in_], np.int64)}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self.mean_ = checks.saved_array(state, "mean", 1, None)
        self.n_features_in_ = int(checks.saved_array(state, "width", 1)[0])
        return self
