"""The blend head: a weighted mean of other heads' predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.data.feature_blocks import FeatureBlocks, consecutive_ranges, select_blocks
from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.data.trunk_rows import TrunkRows
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import checks, make_head
from img2prompt_cache.heads.base import Head, SureTargets
from img2prompt_cache.heads.fitting_rows import FittingRows
from img2prompt_cache.heads.members import are_weights, member_columns, named_apart, scaled_weights
from img2prompt_cache.heads.out_of_fold import made_rows, mixed_rows, predict_by_folds
from img2prompt_cache.heads.outside import Outside
from img2prompt_cache.heads.settings import DEVICE, setting
from img2prompt_cache.numerics import soft_bank
from img2prompt_cache.numerics.blending import ablation, agreement, best_weights, inner_products, mix
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.column_rows import ColumnRows
    from img2prompt_cache.data.feature_blocks import AnyFeatures, Inputs, Ranges
    from img2prompt_cache.heads.base import Groups, State, Targets
    from img2prompt_cache.models.backbones.taps import Described
    from img2prompt_cache.numerics.blending import F64


PRODUCTS = 3 * 8
"""Bytes for each inner product of two predictions for a row: rows are copied while weights are found."""


class Blend(Head):
    """Mix the unit predictions of other heads by weights ≥ 0, and scale the mix to length 1.

    Where no weights are given, they are those with the best mean cosine on predictions for rows that the
    members were not fitted on, by grouped folds; then each member is fitted on all rows.

    Where `fit` is given a `bank`, the mix is then drawn towards the prompts near it; see
    `img2prompt_cache.numerics.soft_bank`.

    A member is a mapping with its `head`, a name; `settings`, arguments of that head's constructor; and
    `columns`, the ranges [start, stop) of the concatenated features that it takes, one for each of its
    backbones; and `extra`, whether it is fitted on extra pairs, too. Without settings they are the defaults,
    without columns it takes all, without `extra` it is true. Other entries are kept as they are. A head on a
    trunk takes one column: the range that it would have if all were flattened.
    """

    name = "blend"
    takes_extra = True
    takes_bank = True

    members: Sequence[Mapping[str, Any]] = setting(
        "For each member its head, settings and columns.", default=()
    )
    weights: Sequence[float] | None = setting("One weight for each member; found if absent.", default=None)
    temperature: float | None = setting(
        "How wide the soft bank looks: τ in softmax(cosine / τ); found if absent.", default=None
    )
    pull: float | None = setting(
        "How far the soft bank draws predictions: β, 0 for not at all; found if absent.", default=None
    )
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

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Groups | None = None,
        widths: Sequence[int] | None = None,
        validation: tuple[Any, Any] | None = None,
        kinds: Any | None = None,
        bank: Any | None = None,
    ) -> Self:
        """Fit the head; see `Head.fit`.

        Parameters
        ----------
        X, y, groups, widths, validation
            As for every head.
        kinds : array-like of int, shape (n,), optional
            0 for rows like those that will be predicted, 1, 2, … for extra pairs of other kinds. Members that
            do not tell them apart are fitted on rows of kind 0.
        bank : array-like, shape (m, t), optional
            Unit embeddings of prompts. They and the targets of kind 0 make up the soft bank; m may be 0.
            Without it predictions are the mix itself.

        Raises
        ------
        UsageError
            If a setting is out of range, or there are fewer groups than folds.
        DataError
            If an array cannot be used, or no row is of kind 0.
        """
        return self._check_and_fit(X, y, groups, widths, validation, kinds=kinds, bank=bank)

    def _fit(
        self,
        X: Inputs | FeatureBlocks,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Inputs | FeatureBlocks, Targets] | None = None,
        kinds: Any | None = None,
        bank: Any | None = None,
    ) -> None:
        rows = FittingRows(X, y, groups, widths, checks.kinds(kinds, len(X)))
        weights, tried = self._given(), []
        others = None if bank is None else checks.targets(bank, self, "the bank's embeddings")
        own: Targets | ColumnRows = y[:0]
        if weights is None or others is not None:
            own = made_rows(unit, [y[rows.kinds == 0]], y.shape[1])
        chosen = self.given_bank()
        if weights is None or (others is not None and chosen is None):
            predictions, fold = self.out_of_fold(X, y, groups=groups, widths=widths, kinds=rows.kinds)
            known = inner_products(predictions, own)
            weights = best_weights(known) if weights is None else weights
            tried = ablation(known, fold, weights)
            if others is not None and chosen is None:
                mixed, true = np.asarray(mixed_rows(predictions, weights)), np.asarray(own)
                temperature, pull, choices = soft_bank.choose(mixed, true, fold, others)
                chosen = temperature, pull
                tried += choices
        heads = self.make_members(self.members)
        columns = member_columns(self.members, widths)
        for member, head, ranges, weight in zip(self.members, heads, columns, weights, strict=True):
            if not weight:
                continue
            held = None if validation is None else (select_blocks(validation[0], ranges), validation[1])
            rows.fit(head, ranges, extra=member.get("extra", True), validation=held)
        self.from_fitted(heads, weights, widths, tried)
        if others is not None and chosen is not None:
            bank = soft_bank.distinct(np.asarray(own), others) if chosen[1] else others[:0]
            self.draw_towards(bank, *chosen)

    def from_fitted(
        self,
        heads: Sequence[Head | None],
        weights: F64,
        widths: tuple[int, ...],
        tried: Sequence[dict[str, Any]] = (),
    ) -> Self:
        """Make this a fitted blend of members that are fitted already.

        Parameters
        ----------
        heads : sequence of Head
            One for each of `members`; it may be None where the weight is 0.
        weights : numpy.ndarray, float64, shape (m,)
        widths : tuple of int
            As for `fit`.
        tried : sequence of dict
            The `history`.
        """
        self.heads_ = [head if weight else None for head, weight in zip(heads, weights, strict=True)]
        self.weights_ = weights
        self.ranges_ = member_columns(self.members, widths)
        self.n_features_in_ = sum(widths)
        self.tried_: list[dict[str, Any]] = list(tried)
        return self.draw_towards(np.empty((0, 0), np.float32), soft_bank.TEMPERATURES[0], 0.0)

    def draw_towards(
        self, bank: Targets, temperature: float, pull: float, nearest: float = soft_bank.NEAREST
    ) -> Self:
        """Draw all predictions towards the prompts of a bank from now on; see `soft_bank.soften`."""
        self.temperature_, self.pull_, self.nearest_ = temperature, pull, int(nearest)
        self.bank_ = (bank if pull else bank[:0]).astype(np.float16)
        return self

    def out_of_fold(
        self,
        X: AnyFeatures,
        y: Targets | ColumnRows,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        kinds: Groups | None = None,
    ) -> tuple[list[Targets | ColumnRows], Groups]:
        """Predict each row of kind 0 by members that were fitted on the other folds.

        Parameters
        ----------
        X, y, groups, widths, kinds
            As for `fit`.

        Returns
        -------
        predictions : list of numpy.ndarray, float32, shape (n, t); or of ColumnRows
            One for each member; on disk where rows are read when they are used.
        fold : numpy.ndarray, int64, shape (n,)
            Grouped folds, 0…`folds`−1.
        """
        rows = FittingRows(X, y, groups, widths, checks.kinds(kinds, len(X)))
        columns, wanted = member_columns(self.members, widths), rows.kinds == 0
        fold = np.full(len(wanted), -1, np.int64)
        fold[wanted] = k_folds(groups[wanted], self.folds, self.seed)
        predictions = []
        with stage("members by folds", len(self.members) * self.folds) as advance:
            for member, ranges in zip(self.members, columns, strict=True):
                fit = partial(self._fitted_member, member, ranges)
                predictions.append(predict_by_folds(fit, rows, ranges, fold, advance))
        return predictions, fold[wanted]

    def _fitted_member(self, member: Mapping[str, Any], columns: Ranges, rows: FittingRows) -> Head:
        (head,) = self.make_members([member])
        rows.fit(head, columns, extra=member.get("extra", True))
        return head

    @property
    def streams(self) -> bool:
        """Whether all members do."""
        return bool(self.members) and all(head.streams for head in self.make_members(self.members))

    def least_memory(self, rows: int) -> int:
        """Say how much members and inner products of their predictions take; see `Head.least_memory`."""
        products = 0 if self.weights is not None else rows * PRODUCTS * (len(self.members) + 1) ** 2
        return products + sum(head.least_memory(rows) for head in self.make_members(self.members))

    @property
    def signals(self) -> tuple[str, ...]:
        """Those of each member, such as `norm of kernel`, and where there are several, their `agreement`."""
        asked = [head for head in self.heads_ if head is not None]
        names = [f"{signal} of {name}" for name, head in named_apart(asked) for signal in head.signals]
        return (*names, "agreement") if len(asked) > 1 else tuple(names)

    def _predict(self, X: Inputs | FeatureBlocks) -> Targets:
        return self._predict_with_signals(X).vectors

    def _predict_with_signals(self, X: Inputs | FeatureBlocks) -> SureTargets:
        """Mix the predictions of the members; one of weight 0 is not asked."""
        members = [
            (head.use_device(self.device), ranges)
            for head, ranges in zip(self.heads_, self.ranges_, strict=True)
            if head is not None
        ]
        weights = self.weights_[self.weights_ > 0]
        predictions: list[Targets] = []
        signals: dict[str, NDArray[np.float64]] = {}
        for (name, head), (_, ranges) in zip(
            named_apart([head for head, _ in members]), members, strict=True
        ):
            sure = head.predict_with_signals(select_blocks(X, ranges))
            found, own = sure.vectors, sure.signals
            predictions.append(found)
            signals |= {f"{signal} of {name}": values for signal, values in own.items()}
        if len(members) > 1:
            signals["agreement"] = agreement(predictions, weights)
        mixed = mix(predictions, weights)
        if not len(self.bank_):
            return SureTargets.of(mixed, signals)
        soft = self.temperature_, self.pull_, self.nearest_
        softened = soft_bank.soften(mixed, self.bank_.astype(np.float32), *soft)
        return SureTargets(softened, mixed, signals)

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per member where the weights were found here; see `blending.ablation`.

        Then one per setting of a soft bank that was tried; see `soft_bank.choose`.
        """
        return self.tried_

    @property
    def chosen(self) -> dict[str, Any]:
        """The `weights`, the `members` with what each of them chose, and the settings of the soft bank."""
        members = [
            {**member, "settings": {**member.get("settings", {}), **(head.chosen if head else {})}}
            for member, head in zip(self.members, self.heads_, strict=True)
        ]
        found = {"members": members, "weights": self.weights_.tolist()}
        return found | {"temperature": self.temperature_, "pull": self.pull_}

    def state(self) -> State:
        """Give `weights` (m,), `width`, the number of features, and each member's state: `members.0.coef`.

        With a soft bank also its embeddings `bank` (b, t), float16, and `soft`: its temperature and
        pull, and how many prompts count.
        """
        found: State = {"weights": self.weights_, "width": np.array([self.n_features_in_], np.int64)}
        if len(self.bank_):
            found |= {"bank": self.bank_, "soft": np.array([self.temperature_, self.pull_, self.nearest_])}
        for number, head in enumerate(self.heads_):
            own = {} if head is None else head.state()
            found |= {f"{_prefix(number)}{key}": value for key, value in own.items()}
        return found

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back; where a member is on a trunk, once `bind` was called."""
        weights = checks.saved_array(state, "weights", len(self.members))
        width = int(checks.saved_array(state, "width", 1)[0])
        if not are_weights(weights):
            raise Img2PromptError(f"the saved head's 'weights' are {weights.tolist()}; fit it again")
        heads = self.make_members(self.members)
        bound: Sequence[Described] = getattr(self, "_bound", ())
        places = consecutive_ranges(prod(column.shape) for column in bound)
        by_place = dict(zip(places, bound, strict=True))
        columns = member_columns(self.members, (width,))
        for number, (head, ranges) in enumerate(zip(heads, columns, strict=True)):
            if not weights[number]:
                continue
            prefix = _prefix(number)
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            try:
                if head.takes == "trunk":
                    head.bind([by_place[each] for each in ranges if each in by_place])
                head.load_state(own)
            except Img2PromptError as error:
                raise Img2PromptError(f"member {number} ({head.name}): {error}") from None
        self.from_fitted(heads, weights, (width,))
        if "bank" in state or "soft" in state:
            bank = checks.saved_array(state, "bank", None, None)
            soft = checks.saved_array(state, "soft", None).tolist()
            if len(soft) == 2:  # of versions in which all prompts counted
                soft.append(0)
            if len(soft) != 3 or soft[0] <= 0:
                raise Img2PromptError(f"the saved head's 'soft' is {soft}; fit it again")
            self.draw_towards(bank, *soft)
        return self

    def given_bank(self) -> tuple[float, float] | None:
        """Give the settings of the soft bank, `temperature` and `pull`; None where they are to be found."""
        if self.temperature is None or self.pull is None:
            return None
        return self.temperature, self.pull

    def _check_settings(self) -> None:
        warm = self.temperature is None or 0 < self.temperature < np.inf
        checks.require(self, "temperature", warm, "finite and above 0")
        checks.require(self, "pull", self.pull is None or 0 <= self.pull < np.inf, "finite and at least 0")
        one_given = (self.temperature is None) != (self.pull is None)
        checks.require(self, "pull", not one_given, "given together with 'temperature', or not at all")

    def _given(self) -> F64 | None:
        if not self.members:
            raise UsageError("a blend needs `members`: name two runs or more", parameter="members")
        return None if self.weights is None else scaled_weights(self.weights, len(self.members))

    def make_members(self, members: Sequence[Mapping[str, Any]]) -> list[Head]:
        """Make the unfitted heads of members.

        Raises
        ------
        UsageError
            If one is no head, or a blend itself, or does not take a setting.
        """
        for member in members:
            if not isinstance(member.get("head"), str) or member["head"] in ("blend", "best"):
                raise UsageError(
                    f"a member of a blend must be a head that is no blend itself, not {member.get('head')!r}"
                )
        heads = [
            Outside()
            if member["head"] == Outside.name
            else make_head(member["head"], **member.get("settings", {}))
            for member in members
        ]
        return [head.use_device(self.device) for head in heads]


def _prefix(number: int) -> str:
    return f"members.{number}."
