"""Trials: what a head says of rows that it was not fitted on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from img2prompt_cache.data.dataset import Dataset
from img2prompt_cache.data.splits import Split, random_split
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import mean_cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head


@dataclass(frozen=True, slots=True)
class Trial:
    """What a head said of held-out rows, fold after fold.

    Attributes
    ----------
    head : Head
        As fitted for the last fold.
    chosen : list of dict
        What it chose for each fold.
    predictions : numpy.ndarray, float32, shape (m, t)
        For the rows that are held out, in ascending order.
    rows_per_second : float
        Of predicting them.
    """

    head: Head
    chosen: list[dict[str, Any]]
    predictions: NDArray[np.float32]
    rows_per_second: float


def try_out(head: Head, data: Dataset, split: Split, chosen: list[dict[str, Any]] | None = None) -> Trial:
    """Fit a head for each fold of a split on the other rows, and predict the fold.

    Parameters
    ----------
    head : Head
        Stays as it is; copies of it are fitted.
    data, split
    chosen : list of dict, optional
        Settings for each fold, in place of choosing them.

    Raises
    ------
    Img2PromptError
        If a prediction is not finite.
    """
    predictions = np.empty_like(data.y)
    found, seconds = [], 0.0
    for number, (train, held) in enumerate(split.sides):
        fitted = fit_rows(configured(head, chosen[number] if chosen else {}), data, split, train)
        started = time.perf_counter()
        predictions[held] = fitted.predict(data.X[held])
        seconds += time.perf_counter() - started
        found.append(fitted.chosen)
    predictions = predictions[split.validation]
    if not np.isfinite(predictions).all():
        raise Img2PromptError(
            f"head {head.name!r} predicts NaN or infinity with these settings; no run was kept"
        )
    return Trial(fitted, found, predictions, len(predictions) / seconds)


def optimism(head: Head, data: Dataset, split: Split, trial: Trial) -> float | None:
    """Tell how much higher the same head, with the settings of a trial, scores on a random split as large.

    Returns
    -------
    float or None
        The difference of the mean cosines; None where the split is random itself.
    """
    if split.strategy == "random":
        return None
    share = len(split.validation) / len(split.fold)
    leaking = random_split(len(split.fold), share, split.seed, None if split.folds == 1 else split.folds)
    flattered = try_out(head, data, leaking, trial.chosen)
    one, other = (
        mean_cosine(said.predictions, data.y[division.validation])
        for said, division in ((flattered, leaking), (trial, split))
    )
    return one - other


def configured(head: Head, settings: dict[str, Any]) -> Head:
    """Copy a head, not fitted, with some settings changed."""
    copy: Head = clone(head).set_params(**settings)
    return copy


def fit_rows(head: Head, data: Dataset, split: Split, rows: NDArray[np.int64]) -> Head:
    """Fit a head on some rows of a dataset; its inner folds keep groups whole as the split does."""
    more: dict[str, Any] = {} if data.texts is None else {"texts": data.texts[rows]}
    if data.views is not None:
        more["views"] = data.views[rows]
    return head.fit(data.X[rows], data.y[rows], groups=split.inner_groups(rows), widths=data.blocks, **more)
