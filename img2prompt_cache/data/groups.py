"""Groups of rows that a split keeps together: near-identical prompts or identical images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.texts import Texts
from img2prompt_cache.data.further_prompts import all_vectors
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.near_identical import MINILM_THRESHOLD
from img2prompt_cache.numerics.similarity_graph import edge_components, similarity_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.further_prompts import FurtherPrompts

    Rows = NDArray[np.int64]

THRESHOLD = MINILM_THRESHOLD
"""Prompts whose MiniLM embeddings have at least this cosine count as near-identical."""


def prompt_groups(
    targets: NDArray[np.float32],
    prompts: Sequence[Hashable],
    images: Sequence[Hashable] | None = None,
    threshold: float = THRESHOLD,
    further: FurtherPrompts | None = None,
) -> Rows:
    """Group rows whose prompts are near-identical or whose images are identical.

    Groups are the connected components of a graph with an edge between two rows if the embeddings of their
    prompts have a cosine ≥ `threshold`, or their prompts are equal, or their images are. Of rows with several
    prompts, any two count. All m distinct prompts are compared with each other, in blocks: m²·d/2
    multiply-adds at most, and the memory of a few blocks, however many near-identical pairs there are.

    Parameters
    ----------
    targets : numpy.ndarray, float32, shape (n, d)
        Embedding of each row's prompt.
    prompts : sequence of hashable, length n
        The prompts, or any values that are equal exactly where the prompts are.
    images : sequence of hashable, length n, optional
        Digest of each row's image.
    threshold : float
        Smallest cosine of near-identical prompts.
    further : FurtherPrompts, optional
        The prompts of rows that have several, but the first.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        Group of each row, numbered from 0 in the order of their first rows.

    Raises
    ------
    Img2PromptError
        If an embedding is not finite.
    """
    # Of further prompts it was checked when they were read.
    if not np.isfinite(np.sum(targets, dtype=np.float64)):
        raise Img2PromptError(
            "targets hold NaN or infinity; run `verify()` on the cache, or extract them anew"
        )
    prompt = factorize(prompts)
    _, first = np.unique(prompt, return_index=True)
    component = similarity_components(unit(all_vectors(targets[first], further)), threshold)
    group = component[prompt] if further is None else join_rows(component, prompt, further.row)
    if images is not None:
        group = merge_groups(group, factorize(images))
    return renumber(group)


def join_rows(component: Rows, first: Rows, row: Rows) -> Rows:
    """Group rows with several prompts, each of which belongs to a component.

    Parameters
    ----------
    component : numpy.ndarray, int64, shape (k + m,)
        Component of each of k distinct first prompts, and of m further ones, from 0.
    first : numpy.ndarray, int64, shape (n,)
        Which of the k is the first prompt of each row.
    row : numpy.ndarray, int64, shape (m,)
        The row of each of the m.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        Equal where rows have prompts of one component, or are joined by other rows.
    """
    group = component[first]
    others = component[len(component) - len(row) :]
    return edge_components(component.max(initial=-1) + 1, group[row], others)[group]


def merge_groups(one: Rows, other: Rows) -> Rows:
    """Merge two groupings: rows that share a group in either are in one group. Numbers start at 0."""
    rows = np.arange(len(one))
    if np.array_equal(other, rows):  # nothing is joined: a graph of all rows would be large
        return one
    if np.array_equal(one, rows):
        return renumber(other)
    other = one.max(initial=-1) + 1 + other
    return edge_components(other.max(initial=-1) + 1, one, other)[one]


def factorize(values: Sequence[Hashable]) -> Rows:
    """Number the distinct values from 0 in the order of first appearance, like `pandas.factorize`."""
    if isinstance(values, Texts):
        return renumber(values.label_distinct())
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int64, len(values))


def renumber(groups: Rows) -> Rows:
    """Number groups from 0 in the order of their first rows.

    Parameters
    ----------
    groups : numpy.ndarray, shape (n,)
        Any values, equal where rows are of one group.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
    """
    n = len(groups)
    if not n:
        return np.empty(0, np.int64)
    if groups.dtype.kind not in "iu" or groups.min() < 0 or groups.max() > 4 * n:
        groups = np.unique(groups, return_inverse=True)[1]
    first = np.full(int(groups.max()) + 1, n)
    first[groups[::-1]] = np.arange(n - 1, -1, -1)  # of equal indices, the last assignment counts
    there = np.flatnonzero(first < n)
    number = first
    number[there[np.argsort(first[there])]] = np.arange(len(there))
    renumbered: Rows = number[groups]
    return renumbered
