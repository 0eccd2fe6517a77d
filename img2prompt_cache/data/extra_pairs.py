"""Extra pairs: rows of other caches that a head is also fitted on, but never scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, used_column
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.groups import THRESHOLD
from img2prompt_cache.errors import UsageError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.neighbours import flat_index, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.manifest import Column

    F32 = NDArray[np.float32]

_ADVICE = "Extra pairs need the same columns: extract them with the same backbones and encoder."


@dataclass(frozen=True, slots=True, eq=False)
class ExtraPairs:
    """Rows of other caches to fit on.

    Attributes
    ----------
    X, y : numpy.ndarray, float32, shapes (m, p) and (m, t)
        Features of the same columns as the rows they are added to, and targets.
    kinds : numpy.ndarray, int64, shape (m,)
        1 for the first cache, 2 for the second, …; see `heads.checks.kinds`.
    caches : tuple of str
        The folders.
    left_out : int
        Rows that were left out, because they are near-identical to a row they would be added to.
    """

    X: F32
    y: F32
    kinds: NDArray[np.int64]
    caches: tuple[str, ...]
    left_out: int


def load_extra_pairs(
    caches: Sequence[Cache], data: Dataset, features: Sequence[Column], target: Column
) -> ExtraPairs:
    """Read the pairs of other caches, but for those that are near-identical to one of `data`.

    A pair is left out if its image is in `data`, or the embedding of its prompt has a cosine of at least
    `groups.THRESHOLD` with one in `data`. So nothing of a held-out row is seen, whichever rows are held out.

    Parameters
    ----------
    caches : sequence of Cache
    data : Dataset
        The rows they are added to.
    features, target
        The columns of `data`.

    Raises
    ------
    UsageError
        If a cache lacks a column, or no pair of it is left.
    Img2PromptError
        If a column was made differently, or is damaged.
    """
    images = {*data.images}
    X, y, kinds, left_out = [], [], [], 0
    for kind, cache in enumerate(caches, 1):
        columns = tuple(used_column(cache, UsedColumn.of(column), _ADVICE) for column in features)
        pairs = load_dataset(cache, columns, used_column(cache, UsedColumn.of(target), _ADVICE, "targets"))
        new = ~near_any(pairs.y, data.y)
        kept = np.array([row for row in np.flatnonzero(new) if pairs.images[row] not in images], np.int64)
        if not len(kept):
            raise UsageError(
                f"`extra` {cache.folder}: each of its {len(pairs.rows)} pairs is near-identical to one of "
                "the cache to fit on, so it adds nothing; leave it out",
                parameter="extra",
            )
        left_out += len(pairs.rows) - len(kept)
        X.append(pairs.X[kept])
        y.append(pairs.y[kept])
        kinds.append(np.full(len(kept), kind, np.int64))
    folders = tuple(str(cache.folder.resolve()) for cache in caches)
    return ExtraPairs(np.concatenate(X), np.concatenate(y), np.concatenate(kinds), folders, left_out)


def near_any(vectors: F32, others: F32) -> NDArray[np.bool_]:
    """Tell which embeddings (m, t) have a cosine ≥ `groups.THRESHOLD` with any of others (n, t)."""
    distances, _ = nearest(flat_index(unit(others)), unit(vectors), 1)
    near: NDArray[np.bool_] = distances[:, 0] <= 1 - THRESHOLD
    return near
