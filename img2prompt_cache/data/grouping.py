"""Grouping: by which embeddings, and from which cosine on, two prompts of a cache are near-identical."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.data.columns import choose_target
from img2prompt_cache.data.further_prompts import load_further
from img2prompt_cache.data.groups import THRESHOLD, factorize, prompt_groups
from img2prompt_cache.data.prompt_vectors import PromptVectors
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.minilm import MINILM, is_minilm
from img2prompt_cache.numerics.near_identical import fit_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.dataset import Dataset
    from img2prompt_cache.data.further_prompts import FurtherPrompts

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grouping:
    """How near-identical prompts are told.

    Attributes
    ----------
    column : Column
        The target column with the embeddings by which they are compared.
    threshold : float
        The smallest cosine of near-identical prompts.
    fitted : bool
        Whether the threshold was fitted to the embeddings; see `fit_threshold`.
    """

    column: Column
    threshold: float = THRESHOLD
    fitted: bool = False

    def describe(self) -> str:
        """Say which prompts are near-identical, and how to change that where the threshold was fitted."""
        told = f"near-identical prompts are those with a cosine of at least {self.threshold:.6g} by "
        told += self.column.spec
        if not self.fitted:
            return told
        return (
            f"{told}; this threshold was fitted to the cosines of the prompts, because the cache has no "
            f'embeddings by {MINILM}: `encoder="packaged:{MINILM}"` adds them in `extract()`, and '
            "`group_threshold` sets another threshold"
        )


def choose_grouping(cache: Cache, data: Dataset, threshold: float | None = None) -> Grouping:
    """Settle how near-identical prompts are told; all runs on the same rows do it alike.

    By MiniLM where the cache has it, from a cosine of 0.8 on, whatever a head predicts. Where it does not, by
    the first target column, text towers of CLIP models coming last, with a threshold that is fitted to the
    cosines of the dataset's distinct prompts.

    Parameters
    ----------
    cache : Cache
        The cache of the dataset.
    data : Dataset
    threshold : float, optional
        In place of 0.8 or the fitted one; above 0, at most 1.

    Raises
    ------
    UsageError
        If the threshold is out of range, or the column is not complete.
    Img2PromptError
        If the column is damaged.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(
            f"`group_threshold` is a cosine above 0 and at most 1, not {threshold}",
            parameter="group_threshold",
        )
    targets = cache.manifest.of_kind("targets")
    minilm = next((column.spec for column in targets if is_minilm(column)), None)
    column = choose_target(cache, minilm)
    if threshold is not None:
        return Grouping(column, threshold)
    if minilm is not None:
        return Grouping(column)
    _, first = np.unique(factorize(data.prompts), return_index=True)
    vectors, _ = prompt_vectors(cache, data, column)
    return Grouping(column, fit_threshold(vectors.select(first)), fitted=True)


def group_rows(cache: Cache, data: Dataset, grouping: Grouping | None = None) -> Rows:
    """Group the near-identical rows of a dataset; see `prompt_groups`.

    Parameters
    ----------
    cache : Cache
        The cache of the dataset.
    data : Dataset
        With or without targets.
    grouping : Grouping, optional
        From `choose_grouping`, which is asked if it is absent.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)

    Raises
    ------
    UsageError
        If the column is not complete.
    Img2PromptError
        If it is damaged.
    """
    grouping = grouping or choose_grouping(cache, data)
    first, further = embeddings_in(cache, data, grouping.column)
    return prompt_groups(first, data.prompts, data.images, grouping.threshold, further)


def prompt_vectors(
    cache: Cache, data: Dataset, column: Column
) -> tuple[PromptVectors, FurtherPrompts | None]:
    """Give what `embeddings_in` reads; the first prompts are read when they are used."""
    if column == data.target:
        return PromptVectors(data.y), data.further
    values = ColumnRows([cache.mapped(column)], data.rows)
    return PromptVectors(values), load_further(cache, column, data.rows)


def embeddings_in(cache: Cache, data: Dataset, column: Column) -> tuple[F32, FurtherPrompts | None]:
    """Read the embeddings of a dataset's prompts in a target column: first (n, d) and further ones."""
    if column == data.target:
        return np.asarray(data.y), data.further
    return cache.values(column, data.rows), load_further(cache, column, data.rows)
