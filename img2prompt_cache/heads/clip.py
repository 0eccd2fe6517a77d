"""The clip head: the training prompt that a CLIP model's text tower puts nearest to the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.neighbours import Neighbours
from img2prompt_cache.numerics import distinct_rows
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Features, Groups, Targets


class Clip(Neighbours):
    """Predict the target of the training prompt with the highest CLIP text-image cosine.

    Nothing is learned: the training rows are only the prompts to choose from. Each prompt is kept once, in
    float16. Of more than 50,000 that are read when they are used, projections are searched, as by `Nearest`;
    otherwise the prompts themselves.
    """

    name = "clip"
    texts = True
    streams = True

    def least_memory(self, rows: int) -> int:
        """Say how much an index of the prompts takes, and telling them apart; see `Head.least_memory`."""
        return super().least_memory(rows) + rows * distinct_rows.BYTES

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Groups | None = None,
        widths: Sequence[int] | None = None,
        validation: tuple[Any, Any] | None = None,
        texts: Any | None = None,
    ) -> Self:
        """Fit the head; see `Head.fit`.

        Parameters
        ----------
        X, y, groups, widths, validation
            As for every head.
        texts : array-like or ColumnRows, shape (n, p)
            The text tower's embedding of each prompt.

        Raises
        ------
        UsageError
            If there are none, or they are not of the same shape as the features.
        """
        return self._check_and_fit(X, y, groups, widths, validation, texts=texts)

    def _fit(
        self,
        X: Features | ColumnRows,
        y: Targets | ColumnRows,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
        texts: Any | None = None,
    ) -> None:
        if texts is None:
            raise UsageError("head 'clip' compares images with prompts; give `texts` of the same model")
        if not isinstance(texts, ColumnRows):  # what is read later is checked then
            texts = checks.features(texts, self, "texts")
        if texts.shape != X.shape:
            raise UsageError(
                f"head 'clip' compares features {X.shape} with texts {texts.shape}: they are not of one model"
            )
        first = distinct_rows.first_rows(texts)
        self.widths_ = np.array([X.shape[1]], np.int64)
        self.mean_, self.scale_ = np.zeros(X.shape[1], np.float32), np.ones(X.shape[1], np.float32)
        self.gains_ = np.ones(1)
        self.vectors_ = self._kept(texts[first], unit, np.float16)
        self.targets_ = self._kept(y[first], unit, np.float32)
        self._search(X[first], groups[first], by_projections=isinstance(X, ColumnRows))
