"""The blend head: a weighted mean of other heads' predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.data.feature_blocks import (
    FeatureBlocks,
    consecutive_ranges,
    select_blocks,
    select_widths,
)
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.data.trunk_rows import TrunkRows
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import checks, make_head
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.settings import DEVICE, setting
from img2prompt_cache.numerics.blending import ablation, best_weights, inner_products, mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.feature_blocks import Inputs
    from img2prompt_cache.heads.base import Groups, State, Targets
    from img2prompt_cache.models.backbones.taps import Described
    from img2prompt_cache.numerics.blending import F64


class Blend(Head):
    """Mix the unit predictions of other heads by weights ≥ 0, and scale the mix to length 1.

    Where no weights are given, they are those with the best mean cosine on predictions for rows that the
    members were not fitted on, by grouped folds; then each member is fitted on all rows.

    A member is a mapping with its `head`, a name; `settings`, arguments of that head's constructor; and
    `columns`, the ranges [start, stop) of the concatenated features that it takes, one for each of its
    backbones. Without settings they are the defaults, without columns it takes all. Other entries are kept as
    they are. A head on a trunk takes one column: the range that it would have if all were flattened.
    """

    name = "blend"

    members: Sequence[Mapping[str, Any]] = setting(
        "For each member its head, settings and columns.", default=()
    )
    weights: Sequence[float] | None = setting("One weight for each member; found if absent.", default=None)
    folds: int = setting("Number of grouped folds to find the weights on.", default=5)
    seed: int = setting("Seed of the folds.", default=0)
    device: str = setting(DEVICE, default="auto", recorded=False)

    def bind(self, columns: Sequence[Described]) -> Self:
        """Keep the columns for those members that have to be told before `load_state`; see `Head.bind`."""
        self._bound: Sequence[Described] = columns
        return self

    def _check_inputs(self, X: Any) -> Any:
        """Check features; rows of a trunk column are checked when they are read."""
        return X if isinstance(X, TrunkRows | FeatureBlocks) else checks.features(X, self)

    def _fit(
        self,
        X: Inputs | FeatureBlocks,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Inputs | FeatureBlocks, Targets] | None = None,
    ) -> None:
        weights, tried = self._given(), []
        if weights is None:
            predictions, fold = self.out_of_fold(X, y, groups=groups, widths=widths)
            known = inner_products(predictions, y)
            weights = best_weights(known)
            tried = ablation(known, fold, weights)
        heads = self._make()
        for head, ranges in zip(heads, self._columns(widths), strict=True):
            held = None if validation is None else (select_blocks(validation[0], ranges), validation[1])
            head.fit(
                select_blocks(X, ranges),
                y,
                groups=groups,
                widths=select_widths(widths, ranges),
                validation=held,
            )
        self.from_fitted(heads, weights, widths, tried)

    def from_fitted(
        self,
        heads: Sequence[Head],
        weights: F64,
        widths: tuple[int, ...],
        tried: Sequence[dict[str, float]] = (),
    ) -> Self:
        """Make this a fitted blend of members that are fitted already.

        Parameters
        ----------
        heads : sequence of Head
            One for each of `members`.
        weights : numpy.ndarray, float64, shape (m,)
        widths : tuple of int
            As for `fit`.
        tried : sequence of dict
            The `history`.
        """
        self.heads_: list[Head] = list(heads)
        self.weights_ = weights
        self.ranges_ = self._columns(widths)
        self.n_features_in_ = sum(widths)
        self.tried_: list[dict[str, float]] = list(tried)
        return self

    def out_of_fold(
        self, X: Inputs | FeatureBlocks, y: Targets, *, groups: Groups, widths: tuple[int, ...]
    ) -> tuple[list[Targets], Groups]:
        """Predict each row by members that were fitted on the other folds.

        Parameters
        ----------
        X, y, groups, widths
            As for `fit`.

        Returns
        -------
        predictions : list of numpy.ndarray, float32, shape (n, t)
            One for each member.
        fold : numpy.ndarray, int64, shape (n,)
            Grouped folds, 0…`folds`−1.
        """
        columns = self._columns(widths)
        fold = k_folds(groups, self.folds, self.seed)
        predictions = [np.empty(y.shape, np.float32) for _ in columns]
        for number in range(self.folds):
            held = fold == number
            for head, ranges, found in zip(self._make(), columns, predictions, strict=True):
                part = select_blocks(X, ranges)
                head.fit(part[~held], y[~held], groups=groups[~held], widths=select_widths(widths, ranges))
                found[held] = head.predict(part[held])
        return predictions, fold

    def _predict(self, X: Inputs | FeatureBlocks) -> Targets:
        """Mix the predictions of the members; one of weight 0 is not asked."""
        asked = np.flatnonzero(self.weights_)
        found = [
            self.heads_[member].use_device(self.device).predict(select_blocks(X, self.ranges_[member]))
            for member in asked
        ]
        return mix(found, self.weights_[asked])

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per member where the weights were found here; see `blending.ablation`."""
        return self.tried_

    @property
    def chosen(self) -> dict[str, Any]:
        """The `weights`, and the `members` with what each of them chose in its settings."""
        members = [
            {**member, "settings": {**member.get("settings", {}), **head.chosen}}
            for member, head in zip(self.members, self.heads_, strict=True)
        ]
        return {"members": members, "weights": self.weights_.tolist()}

    def state(self) -> State:
        """Give `weights` (m,), `width`, the number of features, and each member's state: `members.0.coef`."""
        found = {"weights": self.weights_, "width": np.array([self.n_features_in_], np.int64)}
        for number, head in enumerate(self.heads_):
            found |= {f"{_prefix(number)}{key}": value for key, value in head.state().items()}
        return found

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back; where a member is on a trunk, once `bind` was called."""
        weights = checks.saved_array(state, "weights", len(self.members))
        width = int(checks.saved_array(state, "width", 1)[0])
        if not _are_weights(weights):
            raise Img2PromptError(f"the saved head's 'weights' are {weights.tolist()}; fit it again")
        heads = self._make()
        bound: Sequence[Described] = getattr(self, "_bound", ())
        places = consecutive_ranges(prod(column.shape) for column in bound)
        by_place = dict(zip(places, bound, strict=True))
        for number, (head, ranges) in enumerate(zip(heads, self._columns((width,)), strict=True)):
            prefix = _prefix(number)
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            try:
                if head.takes == "trunk":
                    head.bind([by_place[each] for each in ranges if each in by_place])
                head.load_state(own)
            except Img2PromptError as error:
                raise Img2PromptError(f"member {number} ({head.name}): {error}") from None
        return self.from_fitted(heads, weights, (width,))

    def _given(self) -> F64 | None:
        if not self.members:
            raise UsageError("a blend needs `members`: name two runs or more", parameter="members")
        if self.weights is None:
            return None
        weights = np.asarray(self.weights, np.float64)
        if weights.shape != (len(self.members),) or not _are_weights(weights):
            raise UsageError(
                f"setting 'weights' of head 'blend' must be {len(self.members)} finite numbers, one for each "
                f"member, at least 0 and not all 0, not {list(self.weights)}",
                parameter="weights",
            )
        scaled: F64 = weights / weights.sum()
        return scaled

    def _make(self) -> list[Head]:
        for member in self.members:
            if not isinstance(member.get("head"), str) or member["head"] == self.name:
                raise UsageError(
                    f"a member of a blend must be a head that is no blend itself, not {member.get('head')!r}"
                )
        heads = [make_head(member["head"], **member.get("settings", {})) for member in self.members]
        return [head.use_device(self.device) for head in heads]

    def _columns(self, widths: tuple[int, ...]) -> list[list[tuple[int, int]]]:
        everything = consecutive_ranges(widths)
        found = [[(start, stop) for start, stop in m.get("columns", everything)] for m in self.members]
        for ranges in found:
            whole = all(isinstance(edge, int) for each in ranges for edge in each)
            if not (ranges and whole and all(0 <= start < stop <= sum(widths) for start, stop in ranges)):
                raise UsageError(
                    f"a member of the blend takes columns {ranges}, but there are {sum(widths)} features"
                )
        return found


def _prefix(number: int) -> str:
    return f"members.{number}."


def _are_weights(weights: NDArray[Any]) -> bool:
    return bool(np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0)
