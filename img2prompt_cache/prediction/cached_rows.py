"""Rows of a cache by what is predicted for them, and by their own prompts: what searches rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.columns import UsedColumn, used_column
from img2prompt_cache.data.feature_blocks import concatenate
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.expectation import predict_expected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.manifest import Column
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.prediction.expectation import Expectation

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

STEP = 4096
"""Rows that are read at a time."""
_ADVICE = "The run says nothing of the pictures of this cache: fit it again."


def predict_rows(
    cache: Cache,
    features: Sequence[UsedColumn],
    head: Head,
    rows: Rows,
    expectation: Expectation | None = None,
) -> tuple[F32, F32 | None, NDArray[np.bool_]]:
    """Predict for some rows.

    Parameters
    ----------
    cache : Cache
    features : sequence of UsedColumn
        What the head was fitted on.
    head : Head
    rows : numpy.ndarray, int64, shape (n,)
    expectation : Expectation, optional
        Of its predictions.

    Returns
    -------
    vectors : numpy.ndarray, float32, shape (m, t)
        For the m rows whose features are whole.
    expected : numpy.ndarray, float32, shape (m,), or None
        The cosine to expect, where there is an expectation.
    whole : numpy.ndarray, bool, shape (n,)
        Which these rows are.

    Raises
    ------
    UsageError, Img2PromptError
        If the cache lacks a column, or it is not the one the head was fitted on.
    """
    columns = [used_column(cache, use, _ADVICE) for use in features]
    values = [cache.values(column, rows) for column in columns]
    whole = np.all([np.isfinite(each).reshape(len(each), -1).all(1) for each in values], axis=0)
    if not whole.any():
        return np.empty((0, 0), np.float32), None, whole
    vectors, expected = predict_expected(head, concatenate([each[whole] for each in values]), expectation)
    return vectors, expected, whole


def target_column(cache: Cache, target: UsedColumn) -> Column:
    """Find the targets of a cache that a run was fitted on.

    Raises
    ------
    UsageError, Img2PromptError
        If it has none, or others.
    """
    return used_column(cache, target, _ADVICE, "targets")


def target_rows(cache: Cache, target: UsedColumn, rows: Rows) -> F32:
    """Give the unit embeddings of the prompts of some rows, shape (n, t); NaN where a row has none.

    Raises
    ------
    UsageError, Img2PromptError
        If the targets of the cache are not those that a run was fitted on.
    """
    return unit(cache.values(target_column(cache, target), rows))


def steps(rows: Rows) -> Iterator[Rows]:
    """Divide rows into pieces that are read one after the other."""
    for start in range(0, len(rows), STEP):
        yield rows[start : start + STEP]


def best_first(scores: NDArray[np.floating], k: int) -> Rows:
    """Give the places of the k highest scores, best first; those of NaN and −∞ are left out.

    Of equal ones the first comes first.
    """
    known = np.flatnonzero(np.isfinite(scores))
    k = min(k, len(known))
    if not k:
        return np.empty(0, np.int64)
    found = scores[known]
    if k < len(known):
        edge = np.partition(found, len(found) - k)[len(found) - k]
        known = known[found >= edge]
        found = scores[known]
    return known[np.argsort(-found, kind="stable")[:k]]
