"""What every head is: a regressor that can be scored, saved and read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import clone

from img2prompt_cache.cache.manifest import Kind
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.heads.estimator import VectorRegressor
from img2prompt_cache.heads.settings import settings_declared
from img2prompt_cache.numerics.metrics import cosine, lengths, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.backbones.taps import Described

    Features = NDArray[np.float32]
    Targets = NDArray[np.float32]
    Groups = NDArray[np.int64]
    State = dict[str, NDArray[Any]]
    Signals = Mapping[str, NDArray[np.float64]]
    OnStep = Callable[[int, float], None]


@dataclass(frozen=True, slots=True, eq=False)
class SureTargets:
    """Predictions with signals of how sure the head is.

    Attributes
    ----------
    vectors : numpy.ndarray, float32, shape (n, t)
    unsoftened : numpy.ndarray, float32, shape (n, t)
        The same before a soft bank drew them towards its prompts: how near they are to prompts tells less
        afterwards.
    signals : dict of str to numpy.ndarray, float64, shape (n,)
        Each is higher where the head is surer; many heads give none.
    """

    vectors: Targets
    unsoftened: Targets
    signals: Signals

    @classmethod
    def of(cls, vectors: Targets, signals: Signals) -> Self:
        """Make them of predictions that no soft bank has drawn."""
        return cls(vectors, vectors, signals)


class Head(VectorRegressor):
    """A regressor from cached features to the target embedding.

    Heads that compute with torch also take `device`. It is not a setting: it says where they compute.

    Class attributes
    ----------------
    name : str
        What `fit` and the command line call it.
    takes : str
        The kind of columns it is fitted on: ``"features"`` of any number of backbones, side by side; or one
        ``"trunk"``, whose rows it gets as `TrunkRows` in the place of an array.
    texts : bool
        Whether `fit` also takes `texts`, the embedding of each prompt by the text tower of the one backbone.
    joins : {"pooled", "blocks"}
        What `fit` takes where no column is named: pooled features, or every block of every column: inner
        levels, class names and a second view, too.
    costly : bool
        Whether fitting is slow, so that the leakage gap, a second fit, is measured only if asked for.
    prefers : mapping of str to str
        For a head of one backbone: the backbone it is made for, then those that may take its place, each by
        name with a regular expression that finds it in a column's spec. A head without takes all backbones.
    takes_extra : bool
        Whether `fit` also takes `kinds`, which tell extra pairs from those like what will be predicted.
    takes_bank : bool
        Whether `fit` also takes `bank`, the embeddings of further prompts.
    length_tells : bool
        Whether the length of a prediction, before it is scaled to 1, tells how sure it is: it is shorter
        where training targets disagree. Such a head computes in `_unscaled` in place of `_predict`.
    shares : bool
        Whether `fit` also lets workers compute on parts of the rows, where there are any; see
        `row_blocks.over_rows`.
    reads_features : bool
        Whether predictions depend on the features at all.
    warm_up : int
        Number of first steps of `validate` whose scores say little about that of the last step.
    """

    name: ClassVar[str]
    texts: ClassVar[bool] = False
    takes: ClassVar[Kind] = "features"
    joins: ClassVar[Literal["pooled", "blocks"]] = "pooled"
    costly: ClassVar[bool] = False
    prefers: ClassVar[Mapping[str, str]] = {}
    takes_extra: ClassVar[bool] = False
    takes_bank: ClassVar[bool] = False
    length_tells: ClassVar[bool] = False
    shares: ClassVar[bool] = False
    reads_features: ClassVar[bool] = True
    warm_up: ClassVar[int] = 0

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn also whether features are matrices."""
        tags = super().__sklearn_tags__()
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
        """Score the settings: mean cosine on rows that clones of the head were not fitted on.

        Parameters
        ----------
        X, y, groups, widths
            As for `fit`.
        held : sequence of numpy.ndarray, bool, shape (n,)
            Each marks the rows that one clone is not fitted on but scored on.
        on_step : callable, optional
            Called with the number of a step, from 0, and the score so far. An exception ends the work.

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

    def least_memory(self, rows: int) -> int:
        """Say how many bytes of memory a fit takes, beside what does not grow with rows that it reads.

        Parameters
        ----------
        rows : int
        """
        return 0

    @property
    def random(self) -> bool:
        """Whether another `seed` makes another head, with the settings as they are."""
        return "seed" in self.get_params()

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals that `predict_with_signals` gives, once the head is fitted."""
        return ("norm",) if self.length_tells else ()

    def predict_with_signals(self, X: Any) -> SureTargets:
        """Predict as `predict` does, and give signals of how sure the head is.

        Parameters
        ----------
        X : array-like, shape (n, p)

        Returns
        -------
        SureTargets
        """
        return self._predict_with_signals(self._checked(X))

    def _predict_with_signals(self, X: Any) -> SureTargets:
        """Predict from checked features."""
        if not self.length_tells:
            return SureTargets.of(self._predict(X), {})
        vectors = self._unscaled(X)
        return SureTargets.of(unit(vectors), {"norm": lengths(vectors)})

    def _predict(self, X: Any) -> Targets:
        return unit(self._unscaled(X))

    def _unscaled(self, X: Any) -> NDArray[Any]:
        """Predict vectors of any length from checked features."""
        raise NotImplementedError

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
        """What fitting measured, for `run.json`: JSON values, such as the recall of an index."""
        return {}

    def bind(self, columns: Sequence[Described]) -> Self:
        """Load what the head needs beside its arrays to predict from these columns, before `load_state`.

        `fit` does so by itself. Most heads need nothing.
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
