"""What every head is: a scikit-learn estimator whose predictions are unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, clone

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads.space import Space
from img2prompt_cache.numerics.metrics import cosine, mean_cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.manifest import Kind
    from img2prompt_cache.models.backbones.taps import Described

    Features = NDArray[np.float32]
    Targets = NDArray[np.float32]
    Groups = NDArray[np.int64]
    State = dict[str, NDArray[Any]]
    Report = Callable[[int, float], None]


class Head(BaseEstimator):  # type: ignore[misc]
    """A regressor from cached features to the target embedding.

    Constructor arguments are the settings, stored under their own names (scikit-learn's rule), so
    `get_params` and `clone` work. Fitted values are attributes that end in an underscore.

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
        Whether fitting takes so long that it is not done once more for `optimism`, unless asked for.
    prefers : mapping of str to str
        For a head of one backbone: what it is made for, then what may stand in for that, each by name with a
        regular expression that finds it in a column's spec. Empty: the head takes every cached one, joined.
    space : mapping of str to Range
        Settings worth searching, and what they may be; empty where there are none.
    warm_up : int
        First steps of `validate` whose score says little about the last one's.
    """

    name: ClassVar[str]
    texts: ClassVar[bool] = False
    takes: ClassVar[Kind] = "features"
    costly: ClassVar[bool] = False
    prefers: ClassVar[Mapping[str, str]] = {}
    space: ClassVar[Space] = {}
    warm_up: ClassVar[int] = 0

    def fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups | None = None,
        blocks: tuple[int, ...] | None = None,
        validation: tuple[Features, Targets] | None = None,
    ) -> Self:
        """Fit the head.

        Parameters
        ----------
        X : numpy.ndarray, float32, shape (n, p)
            Joined features, one row per pair.
        y : numpy.ndarray, float32, shape (n, t)
            Unit-norm targets.
        groups : numpy.ndarray, int64, shape (n,), optional
            Rows of one group never sit on both sides of an inner split. Each row its own group if absent.
        blocks : tuple of int, optional
            Widths of the joined backbones, summing to p. One block if absent.
        validation : pair of arrays, optional
            Features and targets watched for early stopping; heads that do not stop early ignore it.
        """
        raise NotImplementedError

    def predict(self, X: Features) -> Targets:
        """Predict unit-norm embeddings: float32, shape (n, t)."""
        raise NotImplementedError

    def score(self, X: Features, y: Targets) -> float:
        """Mean cosine similarity between `predict(X)` and `y`."""
        return mean_cosine(self.predict(X), y)

    def validate(
        self,
        X: Features,
        y: Targets,
        held: Sequence[NDArray[np.bool_]],
        *,
        groups: Groups,
        blocks: tuple[int, ...],
        report: Report | None = None,
    ) -> float:
        """Score these settings: mean cosine on rows held out in turns, by clones fitted on the rest.

        Parameters
        ----------
        X, y, groups, blocks
            As for `fit`.
        held : sequence of numpy.ndarray, bool, shape (n,)
            Marks the rows held out, in each turn.
        report : callable, optional
            Told a step, from 0, and the score so far; what it raises ends the work.

        Raises
        ------
        Img2PromptError
            If a prediction is not finite.
        """
        cosines: list[NDArray[np.float64]] = []
        for turn, out in enumerate(held):
            head = clone(self).fit(X[~out], y[~out], groups=groups[~out], blocks=blocks)
            predictions = head.predict(X[out])
            if not np.isfinite(predictions).all():
                raise Img2PromptError(f"{self.name} predicts NaN or infinity with these settings")
            cosines.append(cosine(predictions, y[out]))
            if report and turn < len(held) - 1:
                report(turn, float(np.mean(np.concatenate(cosines))))
        return float(np.mean(np.concatenate(cosines)))

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
