"""Evaluation: a head's predictions for rows that it was not fitted on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.data.dataset import Dataset
from img2prompt_cache.data.splits import Split, random_split
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fitting.scores import floor_cosines
from img2prompt_cache.numerics import workers
from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.numerics.row_blocks import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.feature_blocks import AnyFeatures
    from img2prompt_cache.heads.base import Head, Signals, SureTargets

    Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A head's predictions for held-out rows, over all folds.

    Attributes
    ----------
    head : Head
        As fitted for the last fold.
    chosen : list of dict
        The settings that it chose for each fold.
    predictions : numpy.ndarray, float32, shape (m, t)
        For the rows that are held out, in ascending order.
    rows_per_second : float or None
        Speed of predicting them; None where they were not predicted one by one.
    signals : dict of str to numpy.ndarray, float64, shape (m,)
        How sure the heads were; those signals that the head of every fold gives.
    unsoftened : numpy.ndarray, float32, shape (m, t), or None
        The predictions before a soft bank drew them towards its prompts; None where none did.
    """

    head: Head
    chosen: list[dict[str, Any]]
    predictions: NDArray[np.float32]
    rows_per_second: float | None
    signals: Signals = field(default_factory=dict)
    unsoftened: NDArray[np.float32] | None = None


def evaluate_head(
    head: Head,
    data: Dataset,
    split: Split,
    chosen: Sequence[Mapping[str, Any]] | None = None,
    advance: Advance = lambda fits: None,
) -> Evaluation:
    """For each fold of a split, fit a head on the other rows and predict the fold.

    Parameters
    ----------
    head : Head
        Stays as it is; copies of it are fitted.
    data, split
    chosen : sequence of mapping, optional
        Settings for each fold, instead of letting the head choose them.
    advance : callable
        Called with 1 after each fold.

    Raises
    ------
    Img2PromptError
        If a prediction is not finite.
    """
    rows = split.validation
    predictions = np.empty((len(rows), data.y.shape[1]), np.float32)
    unsoftened = np.empty_like(predictions) if head.takes_bank else None
    said: list[tuple[NDArray[np.int64], Signals]] = []
    found, seconds = [], 0.0
    for number, (train, held) in enumerate(split.sides):
        fitted = fit_rows(configured(head, chosen[number] if chosen else {}), data, split, train)
        started = time.perf_counter()
        place = np.searchsorted(rows, held)
        for some, sure in _predicted(fitted, data.X[held]):
            predictions[place[some]] = sure.vectors
            if unsoftened is not None:
                unsoftened[place[some]] = sure.unsoftened
            said.append((place[some], sure.signals))
        seconds += time.perf_counter() - started
        found.append(fitted.chosen)
        advance(1)
    require_finite(head.name, predictions)
    return Evaluation(
        fitted,
        found,
        predictions,
        rows_per_second=len(predictions) / seconds,
        signals=_joined(said, len(rows)),
        unsoftened=unsoftened,
    )


def _predicted(head: Head, X: AnyFeatures) -> Iterator[tuple[slice, SureTargets]]:
    """Predict rows: all at once, or block by block, by workers where there are any, where rows are read."""
    if not isinstance(X, ColumnRows):
        yield slice(None), head.predict_with_signals(X)
        return
    blocks = [slice(start, start + BLOCK) for start in range(0, len(X), BLOCK)]
    found = workers.share(lambda some: head.predict_with_signals(X[some]), blocks)
    yield from zip(blocks, found, strict=True)


def _joined(said: list[tuple[NDArray[np.int64], Signals]], count: int) -> Signals:
    """Put the signals of all folds together, for `count` held-out rows."""
    names = [name for name in said[0][1] if all(name in signals for _, signals in said)]
    joined = {name: np.empty(count) for name in names}
    for place, signals in said:
        for name in names:
            joined[name][place] = signals[name]
    return joined


@dataclass(frozen=True, slots=True)
class LeakageGap:
    """How much higher a head scores where near-identical rows are on both sides, and the interval of that.

    `cosine` and its interval `ci95` are what the head gains beyond `floor`, the gain of the mean head. The
    interval is by bootstrap over groups, or None where all held-out rows are one group.
    """

    cosine: float
    floor: float
    ci95: tuple[float, float] | None


PARTS = 5
"""The rows of a hold-out are divided into so many parts to measure the leakage gap, a fit for each."""


def leakage_fits(split: Split) -> int:
    """Count the fits that measuring the leakage gap takes."""
    return split.folds if split.folds > 1 else min(PARTS, len(split.validation))


def measure_leakage_gap(
    head: Head, data: Dataset, split: Split, evaluation: Evaluation, advance: Advance = lambda fits: None
) -> LeakageGap | None:
    """Measure how much higher the same head scores, on the same rows, if rows are divided at random.

    Every held-out row is predicted again, by a head fitted on as many rows as before that were drawn from all
    others without regard to groups. What the mean head gains by that is subtracted and told apart: it sees no
    image, so its gain is that of having fitted on prompts like the held-out ones, which is large where a few
    groups have most of the rows. So the gap of the mean head is 0. By folds the rows are divided into as many
    folds at random; of a hold-out, the held-out rows into `PARTS` parts.

    Parameters
    ----------
    head : Head
        Stays as it is.
    data, split
    evaluation : Evaluation
        On `split`. The settings that it chose are used again.
    advance : callable
        As for `evaluate_head`.

    Returns
    -------
    LeakageGap or None
        None if the split is random itself.
    """
    if split.strategy == "random":
        return None
    rows = split.validation
    gain, floor = np.empty(len(split.fold)), np.empty(len(split.fold))
    gain[rows] = -cosine(evaluation.predictions, np.asarray(data.y[rows]))
    for train, held in split.sides:
        floor[held] = -floor_cosines(data.y, train, held, data.training_targets)
    careless = replace(split, strategy="random")  # inner folds leak, too
    for number, (train, held) in enumerate(_careless_sides(split)):
        chosen = evaluation.chosen[number if split.folds > 1 else 0]
        fitted = fit_rows(configured(head, chosen), data, careless, train)
        predictions = np.concatenate([sure.vectors for _, sure in _predicted(fitted, data.X[held])])
        require_finite(head.name, predictions)
        gain[held] += cosine(predictions, np.asarray(data.y[held]))
        floor[held] += floor_cosines(data.y, train, held, data.training_targets)
        advance(1)
    beyond = (gain - floor)[rows]
    return LeakageGap(float(beyond.mean()), float(floor[rows].mean()), interval(beyond, split.groups[rows]))


def _careless_sides(split: Split) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divide the held-out rows anew without regard to groups: rows to fit on, and rows to predict."""
    n = len(split.fold)
    if split.folds > 1 and len(split.validation) == n:
        yield from random_split(n, seed=split.seed, folds=split.folds).sides
        return
    fitted = min(len(train) for train, _ in split.sides)
    rng = np.random.default_rng([split.seed, n])
    for part in np.array_split(rng.permutation(split.validation), leakage_fits(split)):
        others = np.setdiff1d(np.arange(n), part)
        yield np.sort(rng.choice(others, min(fitted, len(others)), replace=False)), np.sort(part)


def configured(head: Head, settings: Mapping[str, Any]) -> Head:
    """Copy a head, not fitted, with some settings changed."""
    copy: Head = clone(head).set_params(**settings)
    return copy


def fit_rows(head: Head, data: Dataset, split: Split, rows: NDArray[np.int64]) -> Head:
    """Fit a head on some rows of a dataset; its inner folds keep the groups of the split whole."""
    more: dict[str, Any] = {} if data.texts is None else {"texts": data.texts[rows]}
    if data.views is not None:
        more["views"] = data.views[rows]
    X, y, groups = data.X[rows], data.training_targets[rows], split.inner_groups(rows)
    if head.takes_bank:
        more["bank"] = data.bank
    if head.takes_extra and data.extra is not None:
        extra = data.extra
        more["kinds"] = np.concatenate([np.zeros(len(rows), np.int64), extra.kinds])
        X, y = np.concatenate([np.asarray(X), extra.X]), np.concatenate([np.asarray(y), extra.y])
        groups = np.concatenate([groups, groups.max() + 1 + np.arange(len(extra.y))])
    return head.fit(X, y, groups=groups, widths=data.widths, **more)


def require_finite(name: str, predictions: NDArray[np.float32]) -> None:
    """Check the predictions of a head.

    Raises
    ------
    Img2PromptError
        If one of them is not finite.
    """
    if not np.isfinite(predictions).all():
        raise Img2PromptError(f"head {name!r} predicts NaN or infinity with these settings; no run was kept")
