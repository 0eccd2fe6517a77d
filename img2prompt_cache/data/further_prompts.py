"""The further prompts of rows that have several: their embeddings, and the mean of all prompts of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.sources.several import MORE_PROMPTS, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.manifest import Column
    from img2prompt_cache.cache.reader import Cache

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]


TrainOn = Literal["mean", "first"]
"""What heads are fitted on where rows have several prompts: the mean of all embeddings, or the first."""


@dataclass(frozen=True, slots=True, eq=False)
class FurtherPrompts:
    """The prompts of n rows but the first of each: m in all, in the order of the rows.

    Attributes
    ----------
    row : numpy.ndarray, int64, shape (m,)
        Index of the row that each belongs to, ascending.
    vectors : numpy.ndarray, float32, shape (m, t)
        Their embeddings.
    """

    row: Rows
    vectors: F32

    def means(self, first: F32) -> F32:
        """Average the embeddings of all prompts of each row.

        Means are not scaled to length 1: the longer one is, the more the prompts of its row agree.

        Parameters
        ----------
        first : numpy.ndarray, float32, shape (n, t)
            Embeddings of the first prompts.

        Returns
        -------
        numpy.ndarray, float32, shape (n, t)
        """
        total = first.astype(np.float64)
        np.add.at(total, self.row, self.vectors)
        counts = 1 + np.bincount(self.row, minlength=len(first))
        means: F32 = (total / counts[:, None]).astype(np.float32)
        return means

    def select(self, rows: Rows) -> FurtherPrompts:
        """Keep the prompts of some rows; these get the indices 0, 1, … in the order given."""
        start = np.searchsorted(self.row, rows, side="left")
        counts = np.searchsorted(self.row, rows, side="right") - start
        owner = np.repeat(np.arange(len(rows)), counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return FurtherPrompts(owner, self.vectors[np.repeat(start, counts) + place])


def all_vectors(first: F32, further: FurtherPrompts | None) -> F32:
    """Join the embeddings of first prompts (n, t) and of further ones: shape (m, t), m ≥ n."""
    return first if further is None else np.concatenate([first, further.vectors])


def load_further(cache: Cache, target: Column, rows: Rows) -> FurtherPrompts | None:
    """Read the further prompts of some rows of a cache.

    Parameters
    ----------
    cache : Cache
    target : Column
        The target column of the same encoder.
    rows : numpy.ndarray, int64, shape (n,)
        Row numbers in the cache.

    Returns
    -------
    FurtherPrompts or None
        None if none of these rows has several prompts.

    Raises
    ------
    UsageError
        If the column is not complete.
    Img2PromptError
        If it is damaged, or holds infinity.
    """
    if cache.manifest.column("more_targets", target.spec) is None:
        return None
    column = cache.column("more_targets", target.spec)
    cache.require_undamaged([column])
    mapped, owners, found = cache.mapped(column), [], []
    for start in range(0, len(rows), _BLOCK):
        values = mapped[rows[start : start + _BLOCK]]
        there = ~np.isnan(values).all(axis=2)
        owners.append(start + np.nonzero(there)[0])
        found.append(values[there])
    row, vectors = np.concatenate(owners), np.concatenate(found)
    if not np.isfinite(np.sum(vectors, dtype=np.float64)):
        raise Img2PromptError(
            f"{column.folder} holds infinity, or NaN in part of a value; `verify()` tells whether a part was "
            "changed"
        )
    return FurtherPrompts(row, vectors) if len(row) else None


def further_texts(cache: Cache, target: Column, rows: Rows) -> tuple[list[str], F32]:
    """Read the further prompts of some rows of a cache as texts, with their embeddings.

    Parameters
    ----------
    cache, target, rows
        As for `load_further`; rows ascending.

    Returns
    -------
    prompts : list of str, length m
    vectors : numpy.ndarray, float32, shape (m, t)

    Raises
    ------
    UsageError, Img2PromptError
        As `load_further`; also if there are not as many texts as embeddings.
    """
    found = load_further(cache, target, rows) if MORE_PROMPTS in cache.manifest.extra else None
    if found is None:
        return [], np.empty((0, *target.shape), np.float32)
    packed = cache.text(MORE_PROMPTS)[MORE_PROMPTS]
    texts: list[str] = []
    for row, count in zip(*np.unique(found.row, return_counts=True), strict=True):
        texts += unpack(packed[rows[row]])[:count]
    if len(texts) != len(found.vectors):
        raise Img2PromptError(
            f"the embeddings of {target.spec} do not fit the further prompts of {cache.folder}; `verify()` "
            "tells whether a part was changed"
        )
    return texts, found.vectors


_BLOCK = 4096
"""Rows that are read at a time; most of their room may be empty."""
