"""What `fit` says of its split: what was held out and left out, and where a score is to be doubted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.grouping import Grouping, prompt_vectors
from img2prompt_cache.data.purging import SplitCheck, check_split
from img2prompt_cache.progress import Callback, note, warn
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.dataset import Dataset
    from img2prompt_cache.data.splits import Split
    from img2prompt_cache.fitting.config import FitConfig
    from img2prompt_cache.runs.run import Run


def note_test_set(split: Split, tell: Callback, done: str) -> None:
    """Say what a test set is, how many rows are left out for it, and what is `done` on the others."""
    if split.test_set:
        purged = len(split.purged)
        left_out = (
            f"without {purged} that {'is' if purged == 1 else 'are'} near-identical to a row of the test set "
            "(by prompt or image)"
            if purged
            else "none of which is near-identical to a row of the test set"
        )
        note(
            tell,
            f"test set {split.strategy}: {counted(len(split.validation), 'row', 'rows')}; {done} on "
            f"{counted(len(split.train), 'other', 'others')}, {left_out}",
        )


def check_clusters(
    cache: Cache, data: Dataset, split: Split, grouping: Grouping, tell: Callback
) -> SplitCheck | None:
    """Say how many rows were divided, and check that nothing near-identical is on both sides."""
    if not split.clustered or not split.purging:
        return None
    vectors, further = prompt_vectors(cache, data, grouping.column)
    check = check_split(split, vectors, further, grouping.threshold)
    held = split.validation
    sides = [len(train) for train, _ in split.sides]
    each = "" if split.folds == 1 else f" in {split.folds} folds"
    if split.strategy == "group":
        note(
            tell,
            f"{len(split.fold):,} rows are many, or one group of near-identical ones is large, so clusters "
            f"of similar prompts are held out: {len(held):,} rows in "
            f"{counted(len(np.unique(split.groups[held])), 'cluster', 'clusters', ',')}{each}",
        )
    if not split.test_set:
        note(
            tell,
            f"fitted on {min(sides):,} rows{' at least' if len(sides) > 1 else ''}, without "
            f"{len(split.purged):,} that are near-identical to a held-out row "
            f"{'of the fold ' if len(sides) > 1 else ''}(by prompt or image)",
        )
    found = counted(check.found, "is", "are", ",") if check.found else "none is"
    told = (
        f"{counted(check.rows, 'held-out row was', 'held-out rows were', ',')} compared with all rows fitted "
        f"on: of {check.pairs:,} pairs of prompts {found} near-identical"
    )
    (warn if check.found else note)(tell, told)
    return check


def note_large_group(run: Run, config: FitConfig, tell: Callback) -> None:
    """Warn where one group is larger than what is to be held out at a time."""
    split = run.split
    largest = split["largest_group"] / (split["train"] + split["validation"])
    wanted = config.holdout if config.folds is None else 1 / config.folds
    # A column that names the two sides holds out what it says, whatever the groups are.
    # So does a test set.
    if split["strategy"] == "random" or "=" in split["strategy"] or split["straddling"] or largest <= wanted:
        return
    advice = "" if config.folds else "; `folds=5` holds out every row once"
    warn(
        tell,
        f"one group of near-identical rows is {largest:.0%} of all rows, more than the {wanted:.0%} to hold "
        f"out at a time: the score depends much on whether it is held out{advice}",
    )


def note_straddling(run: Run, tell: Callback) -> None:
    """Warn where the user's own split leaks."""
    straddling, split = run.split["straddling"], run.split["strategy"]
    if straddling and split != "random":
        warn(
            tell,
            f'`split="{split}"`: {straddling} of {counted(run.split["groups"], "group", "groups")} of '
            "near-identical prompts or "
            'images have rows on both sides, so the score is too high; `split="group"` keeps them apart',
        )
