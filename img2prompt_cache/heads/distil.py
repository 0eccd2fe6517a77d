"""The distil head: a small mlp that learns from other heads as well as from the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.heads import checks, make_head
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.out_of_fold import below, made_rows
from img2prompt_cache.heads.settings import DEVICE, setting
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, State, Targets

PREDICTIONS = "the teacher's predictions"


class Distil(Head):
    """An mlp whose targets are a mix of the true ones and of what a teacher predicts.

    Images without a prompt can be learned from too: theirs is the teacher's prediction alone. Fitted without
    a teacher's predictions it is a plain mlp.
    """

    name = "distil"
    costly = True
    streams = True

    share: float = setting(
        "Share of the teacher in a target: (1 - share) * true + share * taught, scaled to length 1.",
        default=0.25,
    )
    teacher: str | None = setting("Name of the run that taught it, for the record.", default=None)
    student: Mapping[str, Any] | None = setting(
        "Settings of the mlp that differ from its defaults.", default=None
    )
    seed: int = setting("Seed of the mlp.", default=0)
    device: str = setting(DEVICE, default="auto", recorded=False)

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Groups | None = None,
        widths: Sequence[int] | None = None,
        validation: tuple[Any, Any] | None = None,
        taught: Any | None = None,
        more: tuple[Any, Any] | None = None,
    ) -> Self:
        """Fit the mlp; see `Head.fit`.

        Parameters
        ----------
        X, y, groups, widths, validation
            As for every head.
        taught : array-like, shape (n, t), optional
            Predictions of a teacher that was not fitted on these rows; they may be ColumnRows.
        more : pair of array-like, shapes (m, p) and (m, t), optional
            Features of rows without a target, and the teacher's predictions for them; both may be ColumnRows
            where `X` is.

        Raises
        ------
        UsageError
            If a setting is out of range.
        DataError
            If an array cannot be used.
        """
        return self._check_and_fit(X, y, groups, widths, validation, taught=taught, more=more)

    def _check_settings(self) -> None:
        checks.require(self, "share", 0 <= self.share <= 1, "from 0 to 1")

    def _fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
        taught: Any | None = None,
        more: tuple[Any, Any] | None = None,
    ) -> None:
        true = y
        if taught is not None:
            taught = checks.more_rows(X, taught, (X, true), self, PREDICTIONS)
            y = made_rows(self._mixed, [true, taught], true.shape[1])
        if more is not None and self.share:
            others = more[0] if isinstance(X, ColumnRows) else checks.features(more[0], self)
            predicted = checks.more_rows(others, more[1], (X, true), self, PREDICTIONS)
            X, y = below(X, others), below(y, predicted)
            groups = np.concatenate([groups, groups.max() + 1 + np.arange(len(others))])
        self.head_ = self._make().fit(X, y, groups=groups, widths=widths, validation=validation)

    def _mixed(self, true: Targets, taught: Targets) -> Targets:
        return unit((1 - self.share) * true + self.share * taught)

    def _predict(self, X: Features) -> Targets:
        return self.head_.use_device(self.device).predict(X)

    @property
    def history(self) -> list[dict[str, float]]:
        """That of the mlp; its validation scores are against the mixed targets."""
        return self.head_.history

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings of the `student`, with what it chose."""
        return {"student": {**(self.student or {}), **self.head_.chosen}}

    def state(self) -> State:
        """Give the mlp's arrays."""
        return self.head_.state()

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """Take the fitted arrays back."""
        self.head_ = self._make().load_state(state)
        self.n_features_in_ = self.head_.n_features_in_
        return self

    def _make(self) -> Head:
        head = make_head("mlp", **{"seed": self.seed, **(self.student or {})})
        return head.use_device(self.device)
