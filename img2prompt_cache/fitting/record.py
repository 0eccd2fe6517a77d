"""The record of a fitted head: its scores and provenance put together, and kept as a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.data.dataset import Dataset
from img2prompt_cache.data.purging import SplitCheck
from img2prompt_cache.data.splits import Split, rows_digest
from img2prompt_cache.environment import library_versions
from img2prompt_cache.fitting.evaluate import Evaluation, LeakageGap
from img2prompt_cache.fitting.expected import fit_expectation
from img2prompt_cache.fitting.scores import by_fold, floor, score, score_means
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.runs.folder import save_run
from img2prompt_cache.runs.held_out import Validation
from img2prompt_cache.runs.record import CheckRecord, Metrics, RunRecord, SplitRecord
from img2prompt_cache.runs.run import Run
from img2prompt_cache.runs.used_rows import describe_used_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head


@dataclass(frozen=True, slots=True)
class Reported:
    """What a run tells of a head: its settings with those that it chose, and its history."""

    settings: dict[str, Any]
    history: list[dict[str, float]]

    @classmethod
    def of(cls, head: Head) -> Reported:
        """Ask a fitted head."""
        return cls({**head.settings, **head.chosen}, head.history)


@dataclass(frozen=True, slots=True, eq=False)
class DescribedRows:
    """What a run tells of its rows: so their texts need not be in memory while a head is fitted.

    Attributes
    ----------
    split : SplitRecord
        From `describe_split`.
    held : list of str
        The imgIds of the held-out rows, ascending by row.
    used : numpy.ndarray, uint8
        From `describe_used_rows`.
    """

    split: SplitRecord
    held: list[str]
    used: NDArray[np.uint8]

    @classmethod
    def of(cls, split: Split, data: Dataset, target: Mapping[str, str]) -> DescribedRows:
        """Describe the rows of a dataset, with the fingerprint of the target."""
        return cls(
            describe_split(split, data, target),
            list(data.ids.take(split.validation)),
            describe_used_rows(split, data.ids, data.prompts, data.images),
        )


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A head that was fitted and evaluated, with all that a run records.

    Attributes
    ----------
    head : Head
        The one to be saved.
    evaluation : Evaluation
        Of the same head on held-out rows.
    data : Dataset
        The rows; their texts are not needed.
    split : Split
        How they were divided.
    described : DescribedRows
        Of the rows and the split.
    reported : Reported
        By the head that was evaluated. By folds there is one for each fold, and they may have chosen
        different settings, so then it is by the saved head.
    features : tuple of UsedColumn
        What the head was fitted on.
    target : UsedColumn
        The embeddings that it predicts.
    refit : bool
        Whether the saved head was fitted on all rows.
    rows : int
        Rows that the saved head was fitted on.
    seconds : float
        Wall time of fitting, without the fits that measure the leakage gap.
    leakage_gap : LeakageGap or None
        None if it was not measured.
    metrics : dict
        More metrics, beside those that every run has.
    check : SplitCheck or None
        What an exact search across the split found; None where there was none.
    made_of : tuple of Run
        The runs it was made of.
    request : dict
        What the fit was asked for, to fit it again; empty for a blend of runs.
    """

    head: Head
    evaluation: Evaluation
    data: Dataset
    split: Split
    described: DescribedRows
    reported: Reported
    features: tuple[UsedColumn, ...]
    target: UsedColumn
    refit: bool
    rows: int
    seconds: float
    leakage_gap: LeakageGap | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    check: SplitCheck | None = None
    made_of: tuple[Run, ...] = ()
    request: dict[str, Any] = field(default_factory=dict)


def keep_run(folder: Path, cache: Cache, fitted: FittedHead) -> Run:
    """Score the predictions for held-out rows, and keep them as a run with the head that was fitted.

    Parameters
    ----------
    folder : pathlib.Path
        Reserved already.
    cache : Cache
    fitted : FittedHead

    Raises
    ------
    Img2PromptError
        If the run cannot be written.
    """
    data, split, evaluation = fitted.data, fitted.split, fitted.evaluation
    rows, predictions = split.validation, evaluation.predictions
    targets, groups, fold = np.asarray(data.y[rows]), split.groups[rows], split.fold[rows]
    cosines = cosine(predictions, targets)
    gap, described = fitted.leakage_gap, fitted.described
    scores = {
        **score(predictions, targets, groups, fold),
        "floor": floor(data.y, split, data.training_targets),
        "leakage_gap": gap and gap.cosine,
        "leakage_gap_floor": gap and gap.floor,
        "leakage_gap_ci95": gap and gap.ci95 and list(gap.ci95),
        **({} if data.means is None else score_means(predictions, data.means[rows], groups)),
    }
    train = np.arange(len(data.y)) if fitted.refit else split.train
    expectation, expected = fit_expectation(fitted.head, evaluation, data.y, split, train)
    record = RunRecord(
        head=fitted.head.name,
        settings=fitted.reported.settings,
        features=fitted.features,
        target=fitted.target,
        split={**described.split, **({} if fitted.check is None else {"check": check_record(fitted.check)})},
        metrics=cast(Metrics, {**scores, **fitted.metrics}),
        seconds=fitted.seconds,
        refit=fitted.refit,
        rows=fitted.rows,
        cache=str(cache.folder.resolve()),
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        measured={**fitted.head.measured, **_extra_pairs(data)},
        versions=library_versions(),
        parameters=sum(value.size for value in fitted.head.state().values()),
        predict_rows_per_second=evaluation.rows_per_second,
        fold_metrics=by_fold(cosines, fold, evaluation.chosen) if split.folds > 1 else [],
        train_on="first" if data.means is None else data.train_on,
        updates=min([len(cache.manifest.updates), *(run.updates for run in fitted.made_of)]),
        expected=expected,
        request=fitted.request,
    )
    held = Validation(described.held, groups, predictions, cosines, fold)
    history = fitted.reported.history
    return Run.of(save_run(folder, record, fitted.head, history, held, expectation, described.used), folder)


def _extra_pairs(data: Dataset) -> dict[str, Any]:
    """Say which extra pairs were fitted on, if any were."""
    if data.extra is None:
        return {}
    extra = data.extra
    return {"extra": {"caches": list(extra.caches), "rows": len(extra.y), "left_out": extra.left_out}}


def check_record(check: SplitCheck) -> CheckRecord:
    """Describe a check of a split for the record of a run."""
    return {"rows": check.rows, "pairs": check.pairs, "found": check.found}


def describe_split(split: Split, data: Dataset, target: Mapping[str, str]) -> SplitRecord:
    """Describe a split for the record of a run, with the fingerprint of the target; see `SplitRecord`."""
    grouped: SplitRecord = {}
    if split.grouped_by is not None:
        grouped = {"group_encoder": split.grouped_by[0], "group_threshold": split.grouped_by[1]}
    return {
        "strategy": split.strategy,
        "seed": split.seed,
        "folds": split.folds,
        "digest": split.digest(data.ids, data.prompts, data.images),
        "contents_digest": split.contents_digest(data.ids, data.prompts, data.images, target),
        "held_digest": rows_digest(split.validation, data.ids, data.prompts, data.images),
        "train": len(split.train),
        "validation": len(split.validation),
        "groups": len(np.unique(split.groups)),
        "straddling": split.straddling,
        "largest_group": split.largest_group,
        **({"purged": len(split.purged)} if split.purging else {}),
        **({"clustered": True} if split.clustered else {}),
        **grouped,
    }
