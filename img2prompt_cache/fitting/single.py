"""One head: fitted on columns of a cache, scored on held-out rows, refitted on all rows, kept as a run."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.augmented_views import load_views
from img2prompt_cache.data.columns import UsedColumn, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.grouping import Grouping, choose_grouping
from img2prompt_cache.data.selection import read_selection
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.additions import add_extra_pairs, add_soft_bank
from img2prompt_cache.fitting.columns import choose_columns, stands_in
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.evaluate import (
    configured,
    evaluate_head,
    fit_rows,
    leakage_fits,
    measure_leakage_gap,
)
from img2prompt_cache.fitting.memory import hold_rows
from img2prompt_cache.fitting.record import DescribedRows, FittedHead, Reported, keep_run
from img2prompt_cache.fitting.split_notes import (
    check_clusters,
    note_large_group,
    note_straddling,
    note_test_set,
)
from img2prompt_cache.heads.base import Head
from img2prompt_cache.numerics import workers
from img2prompt_cache.progress import Callback, ignore, note, task, warn
from img2prompt_cache.runs.names import reserve_run
from img2prompt_cache.runs.run import Run

FitColumns: TypeAlias = tuple[tuple[Column, ...], Column, Column | None]
"""Features, the target, and the embedded texts of the prompts, for a head that takes them."""


def fit_head(
    cache: Cache,
    config: FitConfig,
    folder: Path | None = None,
    *,
    overwrite: bool = False,
    tell: Callback = ignore,
) -> Run:
    """Fit a head on a cache and keep it as a run; see `fit`.

    Parameters
    ----------
    cache : Cache
    config : FitConfig
    folder : pathlib.Path, optional
        Where the run goes; a readable name in the cache's `runs` if absent.
    overwrite : bool
        Replace the run in `folder`, once the new one is complete.
    tell : callable
        Told every fit that chooses its settings as a step of the task ``"fit"``, others as one of ``"refit"``
        or ``"leakage gap"``, what fitting takes long for, and notes.

    Raises
    ------
    UsageError
        If a name is unknown, the rows are too few to split, or the folder is taken; or if there are folds and
        no refit: that would leave a head for each fold, and none for the run.
    Img2PromptError
        If the cache is damaged, a prediction is not finite, or the run cannot be written.
    """
    head = config.make_head()
    if config.folds is not None and not config.refit:
        raise UsageError(
            "`refit=False` keeps the head of the training side, but with `folds` there are several; leave "
            "one out",
            parameter="refit",
        )
    features, texts = choose_columns(cache, head, config.features)
    target = choose_target(cache, config.encoder)
    others = [
        column.spec
        for column in cache.manifest.of_kind("targets")
        if column.spec != target.spec and not column.for_grouping
    ]
    if config.encoder is None and others:
        named = ", ".join(others)
        note(tell, f"encoder {target.spec}, the first in the cache; `encoder` names another: {named}")
    specs = [column.spec for column in features]
    with reserve_run(folder, cache.folder, config.head, specs, overwrite=overwrite) as place:
        fitted = _fit(cache, config, head, (features, target, texts), tell)
        run = keep_run(place, cache, fitted)
    if not config.features and (wanted := stands_in(head, specs[0])):
        warn(tell, f"{config.head} is made for {wanted}, which is not cached: {specs[0]} stands in")
    note_straddling(run, tell)
    note_large_group(run, config, tell)
    return run


def load_fit_rows(
    cache: Cache, config: FitConfig, head: Head, columns: FitColumns, *, hold: bool
) -> tuple[Dataset, Grouping]:
    """Read the rows that a head is to be fitted on and scored on, and choose how they are grouped.

    Parameters
    ----------
    cache : Cache
    config : FitConfig
    head : Head
        Not fitted.
    columns : tuple
        Features, the target, and the embedded texts of the prompts, if it takes them.
    hold : bool
        In memory; otherwise features and targets are read when they are used.

    Raises
    ------
    UsageError
        If no row can be used, or the table of `only` cannot be read.
    Img2PromptError
        If the cache is damaged.
    """
    features, target, texts = columns
    only = None if config.only is None else read_selection(config.only)
    views = bool(head.get_params().get("views"))
    data = load_dataset(
        cache, features, target, texts, only=only, views=views, train_on=config.train_on, hold=hold
    )
    return data, choose_grouping(cache, data, config.group_threshold)


def _fit(
    cache: Cache,
    config: FitConfig,
    head: Head,
    columns: FitColumns,
    tell: Callback,
) -> FittedHead:
    started = time.perf_counter()
    features, target, texts = columns
    # Rows of a trunk bring their own views.
    views = head.takes == "features" and bool(head.get_params().get("views"))
    hold = not workers.are_there() and hold_rows(
        head,
        cache.rows,
        sum(math.prod(column.shape) for column in (*features, target, texts) if column is not None),
        config.memory,
        more=bool(config.extra or config.soften or views),
        tell=tell,
    )
    data, grouping = load_fit_rows(cache, config, head, columns, hold=hold)
    if views:
        data = replace(data, views=load_views(cache, data))
    if grouping.fitted:
        note(tell, grouping.describe())
    data = add_extra_pairs(cache, data, config.extra, target, tell, grouping)
    data = add_soft_bank(cache, data, config.soften, target, config.device, tell, grouping)
    split = make_split(cache, data, config.split, config.holdout, config.seed, config.folds, grouping)
    note_test_set(split, tell, "fitted")
    check = check_clusters(cache, data, split, grouping, tell)
    described = DescribedRows.of(split, data, target.fingerprint)
    data = data.without_texts()
    n = len(data.rows)
    slow = head.costly or split.test_set or split.clustered  # of many rows the gap takes several long fits
    wanted = not slow if config.leakage_gap is None else config.leakage_gap
    measured = wanted and split.strategy != "random"
    refit = config.refit and not split.test_set
    anew = refit and config.folds is not None  # the folds may have chosen different settings
    _note_time(head, split.folds + anew, tell)
    with task(tell, "fit", split.folds + anew) as advance:
        evaluation = evaluate_head(head, data, split, advance=advance)
        saved = evaluation.head
        if anew:
            saved = fit_rows(head, data, split, np.arange(n))
            advance(1)
    reported = Reported.of(saved)
    # What follows fits with settings that were chosen before, which takes much less time.
    if refit and not anew:
        with task(tell, "refit", 1) as advance:
            # The head that was evaluated may take much memory or disk, so it goes before there is another.
            chosen = saved.chosen
            evaluation = replace(evaluation, head=configured(head, chosen))
            del saved
            saved = fit_rows(configured(head, chosen), data, split, np.arange(n))
            advance(1)
    seconds = time.perf_counter() - started
    gap = None
    if measured:
        with task(tell, "leakage gap", leakage_fits(split)) as advance:
            gap = measure_leakage_gap(head, data, split, evaluation, advance)
    return FittedHead(
        head=saved,
        evaluation=evaluation,
        data=data,
        split=split,
        described=described,
        reported=reported,
        features=tuple(UsedColumn.of(column) for column in features),
        target=UsedColumn.of(target),
        refit=refit,
        rows=n if refit else len(split.train),
        seconds=seconds,
        leakage_gap=gap,
        check=check,
        request=config.describe(),
    )


def _note_time(head: Head, fits: int, tell: Callback) -> None:
    """Say how long it may take, where the head has a limit of its own."""
    minutes = head.get_params().get("minutes")
    if minutes is not None:
        each = f" for each of {fits} fits" if fits > 1 else ""
        note(tell, f"{head.name} takes about {minutes:g} minutes at most{each}; `minutes` is the limit")
