"""The rows and the split that a run was fitted on, found again in its cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.data.clustered import divide
from img2prompt_cache.data.columns import UsedColumn, choose_target, used_column
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.grouping import Grouping, prompt_vectors
from img2prompt_cache.data.groups import THRESHOLD
from img2prompt_cache.data.kept_divisions import KeptDivisions
from img2prompt_cache.data.purging import purge
from img2prompt_cache.data.splits import Split, is_test_set
from img2prompt_cache.data.test_sets import hold_out_set
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.fitting.record import describe_split
from img2prompt_cache.heads import make_head
from img2prompt_cache.runs.held_out import Validation
from img2prompt_cache.runs.record import same_split
from img2prompt_cache.runs.run import Run
from img2prompt_cache.runs.used_rows import load_used_rows

if TYPE_CHECKING:
    from img2prompt_cache.cache.reader import Cache


def load_rows(
    cache: Cache,
    run: Run,
    held: Validation,
    advice: str,
    features: Sequence[UsedColumn] | None = None,
    *,
    hold: bool = True,
) -> tuple[Dataset, Split]:
    """Read the rows that a run was fitted on and scored on, and find its split again.

    Parameters
    ----------
    cache : Cache
    run : Run
    held : Validation
        Its predictions for held-out rows.
    advice : str
        What to do where a column is not the one that the run was fitted on.
    features : sequence of UsedColumn, optional
        The feature columns to read; those of the run if None.
    hold : bool
        As for `load_dataset`.

    Raises
    ------
    UsageError
        If the cache lacks a column.
    Img2PromptError
        If a column has changed, or the rows are not those that were split.
    """
    target = used_column(cache, run.target, advice, "targets")
    columns = tuple(used_column(cache, use, advice) for use in features or run.features)
    only = ids_of(run, held)
    views = needs_views(run.head, run.settings)
    data = load_dataset(cache, columns, target, only=only, views=views, train_on=run.train_on, hold=hold)
    return data, split_of(cache, run, held, data)


def needs_views(head: str, settings: Mapping[str, Any]) -> bool:
    """Whether a head trains on augmented views of a trunk: then it takes only rows that have them."""
    return make_head(head).takes == "trunk" and bool(settings.get("views"))


def ids_of(run: Run, held: Validation) -> Sequence[str] | None:
    """Give the ids of the rows that a run used, or None where they are not known.

    A run by folds that held out every row knows them, even where the cache has grown since or the run was
    fitted with `only`. So does one on clusters, which always recorded its rows.
    """
    if run.fold_metrics and not run.split["train"]:
        return held.ids
    used = load_used_rows(run.folder) if run.split.get("clustered", False) else None
    return None if used is None else used.ids


def split_of(cache: Cache, run: Run, held: Validation, data: Dataset) -> Split:
    """Find the split of a run again, in the rows of a dataset.

    Raises
    ------
    Img2PromptError
        If the rows are not those that were split.
    """
    strategy, seed = str(run.split["strategy"]), int(run.split["seed"])
    fold_of = dict(zip(held.ids, held.fold.tolist(), strict=True))
    fold = np.array([fold_of.get(name, -1) for name in data.ids], np.int64)
    column = choose_target(cache, run.split.get("group_encoder"))
    grouping = Grouping(column, run.split.get("group_threshold", THRESHOLD))
    vectors, further = prompt_vectors(cache, data, grouping.column)
    clustered = run.split.get("clustered", False)
    kept = KeptDivisions.of(cache, data, grouping)
    if is_test_set(strategy):
        split = hold_out_set(
            data,
            fold >= 0,
            vectors,
            further,
            strategy,
            seed,
            grouping.threshold,
            clustered=clustered,
            kept=kept,
        )
    else:
        groups, _ = divide(
            vectors,
            further,
            data.prompts,
            data.images,
            grouping.threshold,
            clustered=clustered,
            kept=kept,
        )
        split = Split(strategy, seed, fold, groups, clustered=clustered)
        if "purged" in run.split:
            split = purge(split, vectors, further, data.images, grouping.threshold, kept)
    split = replace(split, grouped_by=(grouping.column.spec, grouping.threshold))
    here = describe_split(split, data, run.target.fingerprint)
    if fold.max() < 0 or not same_split(here, run.split):
        raise Img2PromptError(
            f"the usable rows of the cache are not those that {run.name} was fitted on and scored on: the "
            "cache has grown, or the run was fitted with `only`; fit it again as the cache is now, or with "
            "`folds`, so that the run records its rows"
        )
    return split
