"""Fitting: split the rows, fit a head, score it on what was held out, refit on everything, keep the run."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from img2prompt_cache.cache import Cache
from img2prompt_cache.components import near
from img2prompt_cache.dataset import Dataset, choose_features, choose_target, load_dataset
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.heads import make_head
from img2prompt_cache.manifest import Column
from img2prompt_cache.metrics import TIE, cosine, mean_cosine, mse, retrieval, unit
from img2prompt_cache.runs import Run, Use, Validation, claim, new_folder, release, save_run
from img2prompt_cache.splits import Split, column_split, hold_out, prompt_groups, random_split
from img2prompt_cache.versions import library_versions

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        Backbones to join; every cached one if empty.
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
    """

    head: str = "mlp"
    settings: dict[str, Any] | None = None
    features: tuple[str, ...] = ()
    encoder: str | None = None
    split: str = "group"
    fraction: float = 0.2
    seed: int = 0
    refit: bool = True


def fit(
    cache: Cache, choice: Choice, folder: Path | None = None, *, overwrite: bool = False
) -> tuple[Path, Run]:
    """Fit a head on a cache and keep it as a run.

    The metrics are those of a head fitted on the training side only. Whatever a head chooses (penalty,
    neighbours, epochs) it chooses by inner folds of that side, so the hold-out has no say in it.

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
        If a name is unknown, the rows are too few to split, or the folder is taken.
    Img2PromptError
        If the cache is damaged, a prediction is not finite, or the run cannot be written.
    """
    head = seeded(make_head(choice.head, **finite(choice.settings or {})), choice.seed)
    features = choose_features(cache, choice.features)
    target = choose_target(cache, choice.encoder)
    if folder is None:
        folder = new_folder(cache.folder, choice.head, [column.spec for column in features])
    else:
        claim(folder, overwrite=overwrite)
    try:
        return folder, _fit(cache, choice, head, features, target, folder)
    finally:
        release(folder)


def _fit(
    cache: Cache, choice: Choice, head: Head, features: tuple[Column, ...], target: Column, folder: Path
) -> Run:
    started = time.perf_counter()
    data = load_dataset(cache, features, target)
    split = make_split(cache, data, choice.split, choice.fraction, choice.seed)
    held = split.validation
    fit_rows(head, data, split, split.train)
    predictions = head.predict(data.X[held])
    if not np.isfinite(predictions).all():
        raise Img2PromptError(
            f"head {choice.head!r} predicts NaN or infinity with these settings; no run was kept"
        )
    metrics = score(predictions, data.y[held])
    history, settings = head.history, {**head.get_params(), **head.chosen}
    if choice.refit:
        head = clone(head).set_params(**head.chosen)
        fit_rows(head, data, split, np.arange(len(data.rows)))
    run = Run(
        head=choice.head,
        settings=settings,
        features=tuple(use_of(column) for column in features),
        target=use_of(target),
        split=describe_split(split, data),
        metrics=metrics,
        seconds=time.perf_counter() - started,
        refit=choice.refit,
        rows=len(data.rows) if choice.refit else len(split.train),
        cache=str(cache.folder.resolve()),
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        versions=library_versions(),
    )
    validation = Validation(
        ids=[data.ids[row] for row in held],
        groups=split.groups[held],
        predictions=predictions,
        cosine=cosine(predictions, data.y[held]),
    )
    save_run(folder, run, head, history, validation)
    return run


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


def fit_rows(head: Head, data: Dataset, split: Split, rows: NDArray[np.int64]) -> Head:
    """Fit a head on some rows of a dataset; its inner folds keep groups whole as the split does."""
    # A random split leaks, and so do the folds of whoever uses one: to show that is what it is there for.
    groups = None if split.strategy == "random" else split.groups[rows]
    return head.fit(data.X[rows], data.y[rows], groups=groups, blocks=data.blocks)


def make_split(cache: Cache, data: Dataset, name: str, fraction: float, seed: int) -> Split:
    """Split a dataset: ``"group"``, ``"random"``, or by a column of the user's own table.

    Raises
    ------
    UsageError
        If the column is not there, or a side would be empty.
    """
    groups = prompt_groups(data.y, data.prompts, data.images)
    if name == "group":
        return hold_out(groups, fraction, seed)
    if name == "random":
        return replace(random_split(len(data.rows), fraction, seed), groups=groups)
    if name not in cache.manifest.extra:
        kept = ", ".join(cache.manifest.extra) or "none"
        raise UsageError(
            f"--split {name}: it is group, random, or a column of your table; the cache kept: {kept}"
        )
    values = cache.text(name)[name]
    return column_split([values[row] for row in data.rows], groups, name, fraction, seed)


def describe_split(split: Split, data: Dataset) -> dict[str, Any]:
    """What a run keeps of its split.

    `digest` is equal for runs whose scores may be compared, `straddling` the number of groups on both sides.
    """
    return {
        "strategy": split.strategy,
        "seed": split.seed,
        "digest": split.digest(data.ids, data.prompts, data.images),
        "train": len(split.train),
        "validation": len(split.validation),
        "groups": len(np.unique(split.groups)),
        "straddling": split.straddling,
    }


def score(predictions: NDArray[np.float32], targets: NDArray[np.float32]) -> dict[str, float]:
    """Score predictions on a hold-out.

    Parameters
    ----------
    predictions, targets : numpy.ndarray, float32, shape (n, t)
        Unit norm. Retrieval is among the distinct targets: prompts that only differ in what the encoder does
        not see, "A dog" and "a dog", count as one.

    Returns
    -------
    dict
        `cosine`, `mse`, `n`, and `r@1`, `r@5`: how often the true prompt is the nearest, or among five.
    """
    _, first, truth = np.unique(near(unit(targets), 1 - TIE), return_index=True, return_inverse=True)
    found = retrieval(predictions, targets[first], truth)
    return {
        "cosine": mean_cosine(predictions, targets),
        "mse": mse(predictions, targets),
        "n": len(targets),
        **{f"r@{k}": share for k, share in found.items()},
    }


def use_of(column: Column) -> Use:
    """What a run keeps of a column."""
    return Use(column.spec, column.shape[0], column.fingerprint, column.revision)
