"""The clip head: the training prompt that a CLIP model's text tower puts nearest to the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.neighbours import Neighbours
from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Features, Groups, Targets


class Clip(Neighbours):
    """Predict the target of the training prompt with the highest CLIP text-image cosine.

    Nothing is learned: the training rows are only the prompts to choose from. Each prompt is kept once, in
    float16.
    """

    name = "clip"
    texts = True

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
        texts : array-like, shape (n, p)
            The text tower's embedding of each prompt.

        Raises
        ------
        UsageError
            If there are none, or they are not of the same shape as the features.
        """
        return self._check_and_fit(X, y, groups, widths, validation, texts=texts)

    def _fit(
        self,
        X: Features,
        y: Targets,
        *,
        groups: Groups,
        widths: tuple[int, ...],
        validation: tuple[Features, Targets] | None = None,
        texts: Any | None = None,
    ) -> None:
        if texts is None:
            raise UsageError("head 'clip' compares images with prompts; give `texts` of the same model")
        texts = checks.features(texts, self, "texts")
        if texts.shape != X.shape:
            raise UsageError(
                f"head 'clip' compares features {X.shape} with texts {texts.shape}: they are not of one model"
            )
        first = np.sort(np.unique(texts, axis=0, return_index=True)[1])
        self.widths_ = np.array([X.shape[1]], np.int64)
        self.mean_, self.scale_ = np.zeros(X.shape[1], np.float32), np.ones(X.shape[1], np.float32)
        self.gains_ = np.ones(1)
        self.vectors_ = unit(texts[first]).astype(np.float16)
        self.targets_ = unit(y[first])
        self._search(X[first], groups[first])
