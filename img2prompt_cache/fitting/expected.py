"""The expected cosine of a run's predictions: fitted on its held-out rows, and scored on groups of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.splits import Split, k_folds
from img2prompt_cache.numerics.calibration import calibration_error, coverage, rank_correlation
from img2prompt_cache.numerics.expected_cosine import BANK_SIGNALS, bank_signals, fit_curve, stack_signals
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.prediction.expectation import Expectation
from img2prompt_cache.runs.record import ExpectedRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.fitting.evaluate import Evaluation
    from img2prompt_cache.heads.base import Head, Signals, Targets
    from img2prompt_cache.numerics.row_blocks import Matrix

    Rows = NDArray[np.int64]
    F64 = NDArray[np.float64]
    Fit = Callable[[F64, F64], Callable[[F64], F64]]

FEWEST = 100
"""Held-out rows below which the expected cosine is their mean cosine."""

FOLDS = 5
"""Grouped folds of the held-out rows: a curve fitted on the others is scored on each."""

LARGEST_BANK = 20_000
"""Most prompts that are kept to compare predictions with."""


def fit_expectation(
    head: Head, evaluation: Evaluation, y: Matrix, split: Split, train: Rows
) -> tuple[Expectation, ExpectedRecord]:
    """Fit what to expect of the predictions of a head.

    Signals of a held-out row come from the head that was not fitted on it, and from a bank of prompts that
    this head was fitted on, without those of the row's own group. The bank that is kept has as many distinct
    prompts as these have: in a bank with more prompts, the nearest would be nearer.

    Parameters
    ----------
    head : Head
        The one that is saved.
    evaluation : Evaluation
        Of the same head on held-out rows.
    y : numpy.ndarray, float32, shape (n, t)
        Unit targets of all rows.
    split : Split
        Of these rows.
    train : numpy.ndarray, int64
        Rows that the saved head was fitted on.

    Returns
    -------
    Expectation
        The mean cosine for all, where there are fewer than `FEWEST` held-out rows, or one group of them.
    ExpectedRecord
        How well it agrees with the true cosines, by cross-fitting over groups of the held-out rows.
    """
    rows = split.validation
    groups, cosines = split.groups[rows], cosine(evaluation.predictions, np.asarray(y[rows]))
    found, bank = held_out_signals(head, evaluation, y, split, train)
    names = tuple(found)
    signals = stack_signals(found, names, len(rows))
    expectation = Expectation(names, fit_curve(signals, cosines), bank.astype(np.float16))
    record = ExpectedRecord(
        signals=list(names), n=len(rows), spearman=None, calibration_error=None, coverage=[]
    )
    if names:
        expected = cross_fit(signals, cosines, groups)
        record["spearman"] = rank_correlation(expected, cosines)
        record["calibration_error"] = calibration_error(expected, cosines)
        record["coverage"] = coverage(expected, cosines)
    return expectation, record


def held_out_signals(
    head: Head, evaluation: Evaluation, y: Matrix, split: Split, train: Rows
) -> tuple[Signals, Targets]:
    """Give the signals of held-out rows, none where these are too few, and the bank to keep.

    Parameters
    ----------
    head, evaluation, y, split, train
        As for `fit_expectation`.

    Returns
    -------
    signals : dict of str to numpy.ndarray, float64, shape (m,)
    bank : numpy.ndarray, float32, shape (b, t)
    """
    rows = split.validation
    if len(rows) < FEWEST or len(np.unique(split.groups[rows])) == 1:
        return {}, np.asarray(y[:0])
    own = {name: each for name, each in evaluation.signals.items() if name in head.signals}
    plain = evaluation.predictions if evaluation.unsoftened is None else evaluation.unsoftened
    bank, near = _compare_with_prompts(plain, y, split, train)
    return {**own, **near}, bank


def cross_fit(signals: F64, cosines: F64, groups: Rows, fit: Fit = fit_curve) -> F64:
    """Give the expected cosine of each row by a curve that was fitted on other groups.

    Parameters
    ----------
    signals : numpy.ndarray, float64, shape (n, s)
    cosines : numpy.ndarray, float64, shape (n,)
    groups : numpy.ndarray, int64, shape (n,)
        Two at least.
    fit : callable
        What is fitted.
    """
    fold = k_folds(groups, min(FOLDS, len(np.unique(groups))), seed=0)
    expected = np.empty(len(cosines))
    for number in range(fold.max() + 1):
        held = fold == number
        expected[held] = fit(signals[~held], cosines[~held])(signals[held])
    return expected


def _compare_with_prompts(
    predictions: Targets, y: Matrix, split: Split, train: Rows
) -> tuple[Targets, Signals]:
    """Give the bank to keep, and the signals of held-out rows by banks of other groups; both may be empty."""
    others = list(_distinct_others(y, split))
    kept = _distinct(y, train)
    if not min(len(each) for each in (*others, kept)):
        return np.asarray(y[:0]), {}
    size = min(len(kept), round(np.median([len(each) for each in others])))
    found = {name: np.empty(len(predictions)) for name in BANK_SIGNALS}
    for (_, held), rows in zip(split.sides, others, strict=True):
        place = np.searchsorted(split.validation, held)
        for name, values in bank_signals(predictions[place], np.asarray(y[_draw(rows, size)])).items():
            found[name][place] = values
    return np.asarray(y[_draw(kept, size)]), found


def _distinct_others(y: Matrix, split: Split) -> Iterator[Rows]:
    """For each fold, give rows outside it with distinct targets, of none of the groups in it."""
    for train, held in split.sides:
        yield _distinct(y, train[~np.isin(split.groups[train], split.groups[held])])


def _distinct(y: Matrix, rows: Rows) -> Rows:
    """Give rows with distinct targets, of so many rows at most that finding them stays quick."""
    rows = _draw(rows, LARGEST_BANK)
    return rows[np.unique(np.asarray(y[rows]), axis=0, return_index=True)[1]]


def _draw(rows: Rows, most: int) -> Rows:
    """Draw rows without replacement, ascending; all where there are no more than `most`."""
    if len(rows) <= most:
        return np.sort(rows)
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
