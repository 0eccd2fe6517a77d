"""Splits of many rows: whole clusters of similar prompts are held out, a limited number of rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.groups import factorize, merge_groups, prompt_groups, renumber
from img2prompt_cache.data.inner_holdouts import hold_out_many
from img2prompt_cache.data.kept_divisions import NOTHING_KEPT, KeptDivisions
from img2prompt_cache.data.splits import Split, k_fold_split, require_two_groups
from img2prompt_cache.numerics.clusters import cluster_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.further_prompts import FurtherPrompts
    from img2prompt_cache.data.prompt_vectors import PromptVectors

    Rows = NDArray[np.int64]

ALWAYS_COMPONENTS = 20_000
"""Up to so many rows groups are connected components, however large the largest is."""
MOST_COMPONENTS = 50_000
"""With more rows than this, groups are clusters."""
LARGEST_SHARE = 0.05
"""Between the two, groups are clusters where a component has more than this share of the rows."""
MOST_HELD = 20_000
"""Rows held out at most, in each fold, where groups are clusters: enough for a narrow interval."""


def must_cluster(groups: Rows) -> bool:
    """Whether components are too large to be held out: only sets of some size are clustered."""
    return len(groups) > MOST_COMPONENTS or bool(
        len(groups) > ALWAYS_COMPONENTS and np.bincount(groups).max() > LARGEST_SHARE * len(groups)
    )


def divide(
    vectors: PromptVectors,
    further: FurtherPrompts | None,
    prompts: Sequence[Hashable],
    images: Sequence[Hashable],
    threshold: float,
    *,
    clustered: bool | None = None,
    kept: KeptDivisions = NOTHING_KEPT,
) -> tuple[Rows, bool]:
    """Group rows by near-identical prompts and images, or, where they are many, by similar prompts.

    Parameters
    ----------
    vectors, further, prompts, images, threshold
        As for `prompt_groups` and `cluster_groups`.
    clustered : bool, optional
        Whether groups are to be clusters; as `must_cluster` says, if absent.
    kept : KeptDivisions
        Where groups are kept that were found before.

    Returns
    -------
    groups : numpy.ndarray, int64, shape (n,)
    clustered : bool
        Whether they are clusters.
    """
    n = len(vectors)
    if not (clustered or (clustered is None and n > MOST_COMPONENTS)):
        groups = kept.labels(
            ["components"], n, lambda: prompt_groups(vectors.raw(), prompts, images, threshold, further)
        )
        if clustered is not None or not must_cluster(groups):
            return groups, False
    return kept.labels(["clusters"], n, lambda: cluster_groups(vectors, prompts, images)), True


def cluster_groups(vectors: PromptVectors, prompts: Sequence[Hashable], images: Sequence[Hashable]) -> Rows:
    """Group rows by clusters of the embeddings of their first prompts.

    Rows with equal prompts or equal images stay together: of each such set, the first row decides. The
    clusters depend on no seed of a split.

    Parameters
    ----------
    vectors : PromptVectors
        Of n rows.
    prompts, images : sequence of hashable, length n

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        Group of each row, numbered from 0 in the order of their first rows.
    """
    same = merge_groups(factorize(prompts), factorize(images))
    _, first, place = np.unique(same, return_index=True, return_inverse=True)
    return renumber(cluster_vectors(vectors.select(first), seed=0)[place])


def hold_out_clusters(groups: Rows, fraction: float, folds: int | None, seed: int, strategy: str) -> Split:
    """Hold out whole clusters in a random order: up to a fraction of the rows, or in folds.

    At most `MOST_HELD` rows are held out, in each fold; rows beyond are fitted on by all folds. Nothing is
    purged yet.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (n,)
        From `cluster_groups`.
    fraction, folds, seed, strategy
        As for `hold_out` and `k_fold_split`.

    Raises
    ------
    UsageError
        If there are too few clusters, or a parameter is out of range.
    """
    n = len(groups)
    if folds is None:
        require_two_groups(groups, fraction, strategy)
        held = hold_out_many(groups, min(fraction, MOST_HELD / n), seed)
        return Split(strategy, seed, np.where(held, 0, -1), groups, clustered=True)
    if folds * MOST_HELD >= n:
        return replace(k_fold_split(groups, folds, seed, strategy), clustered=True)
    rows = np.flatnonzero(hold_out_many(groups, folds * MOST_HELD / n, seed))
    fold = np.full(n, -1)
    fold[rows] = k_fold_split(groups[rows], folds, seed, strategy).fold
    return Split(strategy, seed, fold, groups, clustered=True)
