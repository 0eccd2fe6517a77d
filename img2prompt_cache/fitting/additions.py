"""Additions to the rows of a cache: pairs of other caches to fit on, and prompts for a soft bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, used_column
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.extra_pairs import ExtraPairs, near_any
from img2prompt_cache.data.further_prompts import all_vectors
from img2prompt_cache.data.grouping import Grouping, choose_grouping, embeddings_in
from img2prompt_cache.errors import UsageError
from img2prompt_cache.prediction.bank import encoded_bank
from img2prompt_cache.progress import Callback, note
from img2prompt_cache.tables import counted

TRAIN = "train"
"""Names the soft bank of the training prompts alone."""

_ADVICE = "Extra pairs need the same columns: extract them with the same backbones and encoder."


def add_extra_pairs(
    cache: Cache,
    data: Dataset,
    caches: Sequence[Path],
    target: Column,
    tell: Callback,
    grouping: Grouping | None = None,
) -> Dataset:
    """Add the pairs of other caches, but for those that are near-identical to one of `data`.

    What is near-identical is told as the split tells it: a pair is left out if its image is in `data`, or
    one of its prompts is near-identical to one of `data` by `grouping`. So nothing of a held-out row is seen,
    whichever rows are held out. Pairs with several prompts are fitted on their mean, or on the first, as the
    rows of `data` are.

    Parameters
    ----------
    cache : Cache
        The cache of `data`.
    data : Dataset
    caches : sequence of pathlib.Path
        Nothing is added if there is none.
    target : Column
        The target of `data`.
    tell : callable
        Told how many there are.
    grouping : Grouping, optional
        How near-identical prompts are told; from `choose_grouping`, which is asked if it is absent.

    Raises
    ------
    UsageError
        If a cache lacks a column of `data`, or no pair of it is left; or if `data` holds a trunk.
    Img2PromptError
        If a column was made differently, or is damaged.
    """
    if not caches:
        return data
    images, grouping = {*data.images}, grouping or choose_grouping(cache, data)
    known = all_vectors(*embeddings_in(cache, data, grouping.column))
    X, y, kinds, left_out = [data.X], [], [], 0
    for kind, folder in enumerate(caches, 1):
        other = Cache(folder)
        columns = tuple(used_column(other, UsedColumn.of(column), _ADVICE) for column in data.features)
        theirs = used_column(other, UsedColumn.of(target), _ADVICE, "targets")
        pairs = load_dataset(other, columns, theirs, train_on=data.train_on)
        compared = used_column(other, UsedColumn.of(grouping.column), _ADVICE, "targets")
        first, further = embeddings_in(other, pairs, compared)
        new = ~near_any(first, known, grouping.threshold)
        if further is not None:
            new[further.row[near_any(further.vectors, known, grouping.threshold)]] = False
        rows = np.flatnonzero(new)
        kept = rows[np.array([image not in images for image in pairs.images.take(rows)], bool)]
        if not len(kept):
            raise UsageError(
                f"`extra` {folder}: each of its {len(pairs.rows)} pairs is near-identical to one of the "
                "cache to fit on, so it adds nothing; leave it out",
                parameter="extra",
            )
        left_out += len(pairs.rows) - len(kept)
        X.append(pairs.X[kept])
        y.append(pairs.training_targets[kept])
        kinds.append(np.full(len(kept), kind, np.int64))
    arrays = [each for each in X if isinstance(each, np.ndarray)]
    if len(arrays) < len(X):
        raise UsageError(
            "`extra` adds pairs to rows of features, but the head is fitted on a trunk; leave it out",
            parameter="extra",
        )
    folders = tuple(str(folder.resolve()) for folder in caches)
    extra = ExtraPairs(
        np.concatenate(arrays[1:]), np.concatenate(y), np.concatenate(kinds), folders, left_out
    )
    note(
        tell,
        f"{len(extra.y):,} extra pairs; {left_out:,} more are left out, because they are near-identical to "
        "pairs of this cache",
    )
    return replace(data, extra=extra)


def add_soft_bank(
    cache: Cache,
    data: Dataset,
    bank: str | Path | None,
    target: Column,
    device: str,
    tell: Callback,
    grouping: Grouping | None = None,
) -> Dataset:
    """Add the embeddings of a soft bank's prompts, but for those that are near-identical to one of `data`.

    The training prompts are in the bank anyway; any other near-identical to one of `data` would give away a
    held-out row. What is near-identical is told as the split tells it; see `Grouping`.

    Parameters
    ----------
    cache : Cache
        The cache of `data`.
    data : Dataset
    bank : str or pathlib.Path, optional
        ``"train"``, or a file as for `encoded_bank`. Nothing is added if it is None.
    target : Column
        The target of `data`.
    device : str
        Where prompts are encoded.
    tell : callable
        Told how many there are.
    grouping : Grouping, optional
        How near-identical prompts are told; from `choose_grouping`, which is asked if it is absent.

    Raises
    ------
    UsageError
        If there is no such file, or it cannot be read.
    Img2PromptError
        If the encoder is not the one that made the targets.
    """
    if bank is None or bank == TRAIN:
        return data if bank is None else replace(data, bank=np.asarray(data.y[:0]))
    found = encoded_bank(Path(bank), UsedColumn.of(target), device, tell, parameter="soften")
    grouping = grouping or choose_grouping(cache, data)
    compared = (
        found
        if grouping.column == target
        else encoded_bank(Path(bank), UsedColumn.of(grouping.column), device, tell, parameter="soften")
    )
    known = all_vectors(*embeddings_in(cache, data, grouping.column))
    vectors = found.vectors[~near_any(compared.vectors, known, grouping.threshold)]
    note(
        tell,
        f"{counted(len(vectors), 'prompt', 'prompts', ',')} in the soft bank beside the training prompts; "
        f"{len(found) - len(vectors):,} more are left out, because they are near-identical to prompts of "
        "this cache",
    )
    return replace(data, bank=vectors)
