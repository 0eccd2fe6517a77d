"""Purging: rows near-identical to a held-out one are left out of training, and a search checks that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.further_prompts import all_vectors
from img2prompt_cache.data.kept_divisions import NOTHING_KEPT, KeptDivisions
from img2prompt_cache.data.splits import PURGED, Split
from img2prompt_cache.errors import UsageError
from img2prompt_cache.numerics.near_rows import count_near_pairs, near_partners

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.further_prompts import FurtherPrompts
    from img2prompt_cache.data.prompt_vectors import PromptVectors

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

CHECKED = 2000
"""Held-out rows that are compared with all training rows to check a split."""


def near_held(
    vectors: PromptVectors,
    further: FurtherPrompts | None,
    images: Sequence[str],
    held: Rows,
    threshold: float,
) -> Rows:
    """Find for each row one that is held out and near-identical to it, by prompt or image.

    Parameters
    ----------
    vectors : PromptVectors
        Of the first prompts of n rows.
    further : FurtherPrompts or None
        And the others.
    images : sequence of str, length n
        Digests of the images.
    held : numpy.ndarray, int64, shape (m,)
        The rows held out.
    threshold : float
        Smallest cosine of near-identical prompts.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        A held-out row, or −1; what held-out rows themselves have says nothing.
    """
    own = None if further is None else further.select(held)
    known = all_vectors(vectors[held], own)
    owner = np.concatenate([held, held if own is None else held[own.row]])
    found = near_partners(vectors, known, threshold)
    partner = np.where(found >= 0, owner[found], -1)
    if further is not None:
        more = near_partners(further.vectors, known, threshold)
        near = more >= 0
        partner[further.row[near]] = owner[more[near]]
    first = {images[row]: row for row in held[::-1].tolist()}
    same = np.fromiter((first.get(image, -1) for image in images), np.int64, len(images))
    return np.where(same >= 0, same, partner)


def purge(
    split: Split,
    vectors: PromptVectors,
    further: FurtherPrompts | None,
    images: Sequence[str],
    threshold: float,
    kept: KeptDivisions = NOTHING_KEPT,
) -> Split:
    """Leave out of training what is near-identical to a held-out row; each fold leaves out its own.

    Parameters
    ----------
    split : Split
        Of n rows.
    vectors, further, images, threshold
        As for `near_held`.
    kept : KeptDivisions
        Where it is kept which rows were found before.

    Raises
    ------
    UsageError
        If nothing is left to train on.
    """

    def near() -> NDArray[np.bool_]:
        found = np.empty((split.folds, len(split.fold)), bool)
        for number in range(split.folds):
            held = split.fold == number
            partner = near_held(vectors, further, images, np.flatnonzero(held), threshold)
            found[number] = (partner >= 0) & ~held
        return found

    shape = (split.folds, len(split.fold))
    found = kept.masks(["purged", split.fold.tobytes()], shape, near)
    return with_purges(split, [np.flatnonzero(each) for each in found])


def with_purges(split: Split, purges: Sequence[Rows]) -> Split:
    """Record in a split which rows each fold leaves out.

    Raises
    ------
    UsageError
        If nothing is left to train on.
    """
    if split.folds == 1:
        fold = split.fold.copy()
        fold[purges[0]] = PURGED
        purged = replace(split, fold=fold, purging=True)
    else:
        purged = replace(split, purges=tuple(purges), purging=True)
    if not all(len(train) for train, _ in purged.sides):
        raise UsageError(
            "cannot hold out rows: every other row is near-identical to one of those to be held out; add "
            'pairs, or use `split="random"` and expect a score that is too high',
            parameter="split",
        )
    return purged


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """What an exact search across a split found.

    Attributes
    ----------
    rows : int
        Held-out rows that were compared, drawn at random.
    pairs : int
        Pairs of a prompt of these and a prompt of a training row of the same fold.
    found : int
        How many of the pairs are near-identical: 0 in a split that keeps its promise.
    """

    rows: int
    pairs: int
    found: int


def check_split(
    split: Split, vectors: PromptVectors, further: FurtherPrompts | None, threshold: float
) -> SplitCheck:
    """Compare some held-out rows with all training rows of their fold, pair by pair, without any bound.

    Parameters
    ----------
    split : Split
    vectors, further, threshold
        As for `near_held`.
    """
    rows = split.validation
    drawn = np.zeros(len(split.fold), bool)
    drawn[np.random.default_rng(split.seed).permutation(rows)[:CHECKED]] = True
    pairs = found = 0
    for train, held in split.sides:
        some = held[drawn[held]]
        if not len(some):
            continue
        known = all_vectors(vectors[some], None if further is None else further.select(some))
        found += count_near_pairs(vectors.select(train), known, threshold)
        pairs += len(train) * len(known)
        if further is not None:
            more = further.select(train).vectors
            found += count_near_pairs(more, known, threshold)
            pairs += len(more) * len(known)
    return SplitCheck(int(drawn.sum()), pairs, found)
