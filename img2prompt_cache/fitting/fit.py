"""Fitting: split the rows, fit a head, score it on what was held out, refit on everything, keep the run."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.augmented_views import load_views
from img2prompt_cache.data.columns import UsedColumn, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.selection import read_selection
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.columns import choose_columns
from img2prompt_cache.fitting.evaluate import configured, fit_rows, optimism, try_out
from img2prompt_cache.fitting.record import keep_run
from img2prompt_cache.heads import make_head
from img2prompt_cache.runs.names import reserve_run
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Head


@dataclass(frozen=True, slots=True)
class Choice:
    """What `fit` was asked for.

    Attributes
    ----------
    head : str
        Name of the head.
    settings : dict
        Settings of the head that differ from its defaults.
    features : tuple of str
        Backbones to join; if empty every cached one, or the one that the head is made for. For a head on a
        trunk, its one backbone.
    encoder : str or None
        Target column; the first if absent.
    split : str
        ``"group"``, ``"random"`` or a column of the user's own table.
    fraction : float
        Share of rows held out.
    seed : int
        Of the split and of the head.
    refit : bool
        Fit the saved head again on all rows, with what the first fit chose.
    folds : int or None
        Hold out every row once, in so many folds, instead of a fraction. The saved head is then fitted on all
        rows and chooses anew, for the folds may have chosen differently.
    optimism : bool or None
        Also score on a random split, to tell by how much that flatters; if None, unless the head is costly.
    only : pathlib.Path or None
        A table that names the rows to use, as `dedup` writes it; see `read_selection`.
    """

    head: str = "mlp"
    settings: dict[str, Any] | None = None
    features: tuple[str, ...] = ()
    encoder: str | None = None
    split: str = "group"
    fraction: float = 0.2
    seed: int = 0
    refit: bool = True
    folds: int | None = None
    optimism: bool | None = None
    only: Path | None = None


def fit(
    cache: Cache, choice: Choice, folder: Path | None = None, *, overwrite: bool = False
) -> tuple[Path, Run]:
    """Fit a head on a cache and keep it as a run.

    The metrics are those of a head fitted on the training side only, or of one for each fold, fitted on the
    others. Whatever a head chooses (penalty, neighbours, epochs) it chooses by inner folds of that side, so
    the hold-out has no say in it.

    Parameters
    ----------
    cache : Cache
    choice : Choice
    folder : pathlib.Path, optional
        Where the run goes; a readable name in the cache's `runs` if absent.
    overwrite : bool
        Replace the run that is there, once the new one is whole.

    Returns
    -------
    folder : pathlib.Path
    run : Run

    Raises
    ------
    UsageError
        If a name is unknown, the rows are too few to split, the folder is taken, or there are folds and no
        refit: that would leave a head for each fold, and none for the run.
    Img2PromptError
        If the cache is damaged, a prediction is not finite, or the run cannot be written.
    """
    head = seeded(make_head(choice.head, **finite(choice.settings or {})), choice.seed)
    if choice.folds is not None and not choice.refit:
        raise UsageError(
            "--no-refit keeps the head of the training side, but --folds has several; leave one out"
        )
    features, texts = choose_columns(cache, head, choice.features)
    target = choose_target(cache, choice.encoder)
    specs = [column.spec for column in features]
    with reserve_run(folder, cache.folder, choice.head, specs, overwrite=overwrite) as place:
        return place, _fit(cache, choice, head, features, target, texts, place)


def _fit(
    cache: Cache,
    choice: Choice,
    head: Head,
    features: tuple[Column, ...],
    target: Column,
    texts: Column | None,
    folder: Path,
) -> Run:
    started = time.perf_counter()
    only = None if choice.only is None else read_selection(choice.only)
    views = bool(head.get_params().get("views"))
    data = load_dataset(cache, features, target, texts, only=only, views=views)
    if views and head.takes == "features":  # rows of a trunk bring their own
        data = replace(data, views=load_views(cache, data))
    split = make_split(cache, data, choice.split, choice.fraction, choice.seed, choice.folds)
    trial = try_out(head, data, split)
    if choice.folds is not None:
        saved = told = fit_rows(head, data, split, np.arange(len(data.rows)))
    elif choice.refit:
        told = trial.head
        saved = fit_rows(configured(head, told.chosen), data, split, np.arange(len(data.rows)))
    else:
        saved = told = trial.head
    seconds = time.perf_counter() - started
    wanted = not head.costly if choice.optimism is None else choice.optimism
    return keep_run(
        folder,
        cache,
        saved,
        told,
        data,
        split,
        trial.predictions,
        trial.chosen,
        features=tuple(UsedColumn.of(column) for column in features),
        target=UsedColumn.of(target),
        metrics={"leakage_gap": optimism(head, data, split, trial) if wanted else None},
        seconds=seconds,
        refit=choice.refit,
        rows=len(data.rows) if choice.refit else len(split.train),
        rows_per_second=trial.rows_per_second,
    )


def finite(settings: dict[str, Any]) -> dict[str, Any]:
    """Check that settings are finite numbers where they are numbers.

    Raises
    ------
    UsageError
        Naming the setting that is not.
    """
    for name, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number, not {value}")
    return settings


def seeded(head: Head, seed: int) -> Head:
    """Give the seed to a head that takes one and was not given its own."""
    if "seed" in head.get_params():
        head.set_params(seed=seed)
    return head
