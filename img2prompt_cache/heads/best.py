"""The best head: a kernel on all blocks, and whatever else is shown to help on the rows at hand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from img2prompt_cache.data.splits import k_folds
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.heads.fitting_rows import FittingRows
from img2prompt_cache.heads.members import member_columns
from img2prompt_cache.heads.out_of_fold import made_rows, mixed_rows, predict_by_folds
from img2prompt_cache.heads.settings import setting
from img2prompt_cache.numerics import soft_bank
from img2prompt_cache.numerics.blending import best_weights, cross_weights, inner_products
from img2prompt_cache.numerics.bootstrap import standard_error
from img2prompt_cache.numerics.metrics import cosine, unit
from img2prompt_cache.numerics.row_blocks import in_blocks
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from img2prompt_cache.data.column_rows import ColumnRows
    from img2prompt_cache.data.feature_blocks import FeatureBlocks, Inputs
    from img2prompt_cache.heads.base import Groups, Head, Targets

LADDER = (
    {"head": "kernel", "extra": False},
    {"head": "kernel", "extra": True},
    {"head": "knn", "extra": False},
    {"head": "mlp", "settings": {"mix": 1.0}, "extra": False},  # the kernel is what it is mixed with
)
"""Members that are tried by default."""
MOST_BANK = 50_000
"""Rows up to which a soft bank of their prompts is tried unasked: it compares each row with each prompt."""


class Best(Blend):
    """Climb a ladder of candidates, and keep what pays on rows that were held out from it.

    By default the first step is a kernel. Then the same with extra pairs, where `fit` is given some, in its
    place; k nearest neighbours and an mlp, blended with what was kept before. The last step is a soft bank of
    the training prompts and whatever `bank` adds; of more than 50,000 rows only if there is a `bank`, because
    it compares each row with each prompt. Each is scored on grouped folds of the training rows, with weights
    and settings of the bank found on the other folds, and is kept if it raises the mean cosine by more than
    the standard error of the paired difference over groups.

    Settings that a member chooses itself are chosen once, on all training rows, not anew in each fold: that
    favours steps that choose more settings. What the whole choice gains is measured by scoring this head on
    other rows.
    """

    name = "best"
    joins = "blocks"
    costly = True

    members: Sequence[Mapping[str, Any]] = setting(
        "Members to try, in this order; one in the place of an earlier one of the same head.", default=LADDER
    )
    minutes: float = setting(
        "Time for each fit: a step is left out if it would end later, were it as long as the longest before.",
        default=10.0,
    )

    def _check_settings(self) -> None:
        super()._check_settings()
        checks.require(self, "minutes", 0 <= self.minutes < np.inf, "finite and at least 0")

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
        own = int((checks.kinds(kinds, len(X)) == 0).sum())
        asked = bank is not None or own <= MOST_BANK
        bank = np.empty((0, y.shape[1]), np.float32) if bank is None else bank
        if self.weights is not None:  # chosen before
            super()._fit(X, y, groups=groups, widths=widths, validation=validation, kinds=kinds, bank=bank)
            return
        rows = FittingRows(X, y, groups, widths, checks.kinds(kinds, len(X)))
        others = checks.targets(bank, self, "the bank's embeddings")
        climb = _Climb(self, rows, others, deadline=time.perf_counter() + 60 * self.minutes)
        with stage("best", len(self.members) + 1, "uneven") as advance:
            for at, member in enumerate(self.members):
                if not member.get("extra") or rows.kinds.any():
                    climb.try_member(at)
                    self._stand(climb, widths)
                advance(1)
            if asked:
                climb.try_bank()
                self._stand(climb, widths)

    def _stand(self, climb: _Climb, widths: tuple[int, ...]) -> None:
        """Make this the fitted head of the steps that were kept so far."""
        heads = [climb.kept[at].head if at in climb.kept else None for at in range(len(self.members))]
        weights = np.zeros(len(heads))
        weights[[*climb.kept]] = climb.weights
        self.from_fitted(heads, weights, widths, climb.steps)
        self.draw_towards(climb.bank, *climb.soft)


@dataclass(frozen=True, slots=True, eq=False)
class _Tried:
    """A member's head, fitted on all rows, and what clones of it predict for held-out rows."""

    head: Head
    predictions: Targets | ColumnRows


class _Climb:
    """The steps that were kept so far, and the cosines of held-out rows that they reach."""

    def __init__(self, best: Best, rows: FittingRows, others: Targets, deadline: float) -> None:
        self.best, self.rows, self.others, self.deadline = best, rows, others, deadline
        wanted = rows.kinds == 0
        self.fold = np.full(len(wanted), -1, np.int64)
        self.fold[wanted] = k_folds(rows.groups[wanted], best.folds, best.seed)
        self.true: Targets | ColumnRows = made_rows(unit, [rows.y[wanted]], rows.y.shape[1])
        self.groups, self.folds = rows.groups[wanted], self.fold[wanted]
        self.kept: dict[int, _Tried] = {}
        self.weights = np.empty(0)
        self.soft, self.bank = (soft_bank.TEMPERATURES[0], 0.0), others[:0]
        self.mixed, self.cosines = self.true, np.full(len(self.true), -1.0)
        self.steps: list[dict[str, Any]] = []
        self.longest = 0.0

    def try_member(self, number: int) -> None:
        """Try a member: in the place of one with the same head, or blended with the others."""
        member = self.best.members[number]
        name = member["head"] + (" with extra pairs" if member.get("extra") else "")
        if not self._begin(name):
            return
        tried = self._fitted(member)
        members = {at: each for at, each in self.kept.items() if each.head.name != member["head"]}
        members[number] = tried
        predictions = [each.predictions for each in members.values()]
        known = inner_products(predictions, self.true)
        mixed = mixed_rows(predictions, cross_weights(known, self.folds)[self.folds])
        if self._end(name, mixed):
            self.kept, self.weights, self.mixed = members, best_weights(known), mixed

    def try_bank(self) -> None:
        """Try a soft bank of the training prompts and the others."""
        if not self._begin("soft bank"):
            return
        true, unsoftened = np.asarray(self.true), np.asarray(self.mixed)
        given, mixed = self.best.given_bank(), np.empty_like(unsoftened)
        with stage("soft bank by folds", self.best.folds) as advance:
            for number in range(self.best.folds):
                held = self.folds == number
                found = given or self._choose_bank(unsoftened[~held], true[~held], self.folds[~held])
                bank = soft_bank.distinct(true[~held], self.others)
                mixed[held] = soft_bank.soften(unsoftened[held], bank, *found)
                advance(1)
        if self._end("soft bank", mixed):
            self.soft = given or self._choose_bank(unsoftened, true, self.folds)
            self.bank = soft_bank.distinct(true, self.others)

    def _choose_bank(self, predictions: Targets, true: Targets, fold: Groups) -> tuple[float, float]:
        """Choose the settings of the soft bank on some rows."""
        return soft_bank.choose(predictions, true, fold, self.others)[:2]

    def _fitted(self, member: Mapping[str, Any]) -> _Tried:
        rows, best = self.rows, self.best
        extra = bool(member.get("extra"))
        (columns,) = member_columns([member], rows.widths)
        (head,) = best.make_members([member])
        rows.fit(head, columns, extra=extra)

        def fit(others: FittingRows) -> Head:
            other: Head = clone(head).set_params(**head.chosen)
            others.fit(other, columns, extra=extra)
            return other

        with stage(f"{head.name} by folds", best.folds) as advance:
            return _Tried(head, predict_by_folds(fit, rows, columns, self.fold, advance))

    def _begin(self, name: str) -> bool:
        self.started = time.perf_counter()
        if not self.kept or self.started + self.longest <= self.deadline:
            return True
        self.steps.append({"step": name, "kept": 0})
        return False

    def _end(self, name: str, mixed: Targets | ColumnRows) -> bool:
        seconds = time.perf_counter() - self.started
        self.longest = max(self.longest, seconds)
        cosines = np.concatenate([cosine(*both) for _, both in in_blocks([mixed, self.true])])
        gain = cosines - self.cosines
        error = standard_error(gain, self.groups)
        keeps = not self.kept or gain.mean() > error
        record = {"step": name, "cosine": float(cosines.mean()), "seconds": seconds, "kept": int(keeps)}
        if self.kept:
            record |= {"gain": float(gain.mean()), "standard error": error}
        self.steps.append(record)
        if keeps:
            self.cosines = cosines
        return keeps
