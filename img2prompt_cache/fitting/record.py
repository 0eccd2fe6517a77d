"""Records: what was found out by fitting a head, put together and kept as a run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.data.dataset import Dataset
from img2prompt_cache.data.splits import Split, rows_digest
from img2prompt_cache.environment import library_versions
from img2prompt_cache.fitting.scores import by_fold, floor, score
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.runs.folder import save_run
from img2prompt_cache.runs.held_out import Validation
from img2prompt_cache.runs.record import Metrics, RunRecord, SplitRecord
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head


def keep_run(
    folder: Path,
    cache: Cache,
    saved: Head,
    told: Head,
    data: Dataset,
    split: Split,
    predictions: NDArray[np.float32],
    chosen: list[dict[str, Any]],
    *,
    features: tuple[UsedColumn, ...],
    target: UsedColumn,
    metrics: dict[str, Any],
    seconds: float,
    refit: bool,
    rows: int,
    rows_per_second: float | None = None,
) -> Run:
    """Score predictions of held-out rows, and keep them as a run with the head that was fitted.

    Parameters
    ----------
    folder : pathlib.Path
        Claimed already.
    cache : Cache
    saved, told : Head
        The head to be kept, and the one whose settings and history are told: the same, or `saved` is fitted
        again with what `told` chose.
    data, split
        The rows and their division.
    predictions : numpy.ndarray, float32, shape (m, t)
        For ``split.validation``.
    chosen : list of dict
        What was chosen for each fold.
    features, target
        What the head was fitted on.
    metrics : dict
        To be told beside those that every run has; `optimism`, None if not tried, is one.
    seconds, refit, rows, rows_per_second
        As `Run` has them.

    Raises
    ------
    Img2PromptError
        If the run cannot be written.
    """
    held = split.validation
    cosines, groups, fold = cosine(predictions, data.y[held]), split.groups[held], split.fold[held]
    record = RunRecord(
        head=told.name,
        settings={**told.get_params(), **told.chosen},
        features=features,
        target=target,
        split=describe_split(split, data),
        metrics=cast(
            Metrics, {**score(predictions, data.y[held], groups), "floor": floor(data.y, split), **metrics}
        ),
        seconds=seconds,
        refit=refit,
        rows=rows,
        cache=str(cache.folder.resolve()),
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        measured=saved.measured,
        versions=library_versions(),
        parameters=sum(value.size for value in saved.state().values()),
        predict_rows_per_second=rows_per_second,
        fold_metrics=by_fold(cosines, fold, chosen) if split.folds > 1 else [],
    )
    ids = [data.ids[row] for row in held]
    held_out = Validation(ids, groups, predictions, cosines, fold)
    return Run.of(save_run(folder, record, saved, told.history, held_out), folder)


def describe_split(split: Split, data: Dataset) -> SplitRecord:
    """What a run keeps of its split.

    `digest` is equal for runs whose scores may be compared; `held_digest` is of the held-out rows alone, to
    find them again in a cache that has grown; `straddling` is the number of groups on both sides.
    """
    return {
        "strategy": split.strategy,
        "seed": split.seed,
        "folds": split.folds,
        "digest": split.digest(data.ids, data.prompts, data.images),
        "held_digest": rows_digest(split.validation, data.ids, data.prompts, data.images),
        "train": len(split.train),
        "validation": len(split.validation),
        "groups": len(np.unique(split.groups)),
        "straddling": split.straddling,
    }
