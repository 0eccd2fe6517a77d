"""Inner predictions for a blend by folds: of members that have seen nothing of the fold that is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.numerics.blending import InnerProducts, inner_products
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from img2prompt_cache.data.dataset import Dataset
    from img2prompt_cache.data.splits import Split

FOLDS = 5
"""Inner folds of the training rows of each fold."""

Members = Sequence[Mapping[str, Any]]


def can_be_nested(members: Members, split: Split) -> bool:
    """Whether the members of a blend by folds can be fitted on inner folds in reasonable time.

    A head that takes long to fit, or that learns from more than features and targets, cannot; and there must
    be two groups to divide.
    """
    heads = [make_head(str(member["head"])) for member in members]
    if split.folds == 1 or any(head.costly or head.texts for head in heads):
        return False
    return all(len(np.unique(split.inner_groups(train))) > 1 for train, _ in split.sides)


def nested_products(
    members: Sequence[Members], data: Dataset, split: Split, seed: int
) -> list[InnerProducts]:
    """For each fold, predict its training rows by members that were fitted on inner folds of them.

    The predictions that the members were scored with will not do: those for a row outside the fold come from
    heads that were fitted on the fold's targets, so weights that are found on them know something of the rows
    that they are scored on; see `benchmarks/coverage.py`.

    Parameters
    ----------
    members : sequence, for each fold the members as `Blend` takes them
        With the settings that were chosen for that fold.
    data : Dataset
        With the columns of all members.
    split : Split
        Of its rows, into folds.
    seed : int
        Of the inner folds.

    Returns
    -------
    list of InnerProducts
        One for each fold, of its training rows. Nothing in it depends on the targets of the fold.
    """
    found = []
    with stage("inner folds of members", len(members)) as advance:
        for chosen, (train, _) in zip(members, split.sides, strict=True):
            groups = split.inner_groups(train)
            folds = min(FOLDS, len(np.unique(groups)))
            predictions, _ = Blend(chosen, folds=folds, seed=seed).out_of_fold(
                data.X[train], data.training_targets[train], groups=groups, widths=data.widths
            )
            found.append(inner_products(predictions, data.y[train]))
            advance(1)
    return found
