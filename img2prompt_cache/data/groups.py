"""Groups of rows that a split keeps together: near-identical prompts or identical images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.similarity_graph import edge_components, similarity_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

THRESHOLD = 0.8
"""Prompts whose embeddings have at least this cosine count as near-identical."""


def prompt_groups(
    targets: NDArray[np.float32],
    prompts: Sequence[Hashable],
    images: Sequence[Hashable] | None = None,
    threshold: float = THRESHOLD,
) -> Rows:
    """Group rows whose prompts are near-identical or whose images are identical.

    Groups are the connected components of a graph with an edge between two rows if the embeddings of their
    prompts have a cosine ≥ `threshold`, or their prompts are equal, or their images are. All m distinct
    prompts are compared with each other, in blocks: m²·d/2 multiply-adds at most, and the memory of a few
    blocks, however many near-identical pairs there are.

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

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        Group of each row, numbered from 0 in the order of their first rows.

    Raises
    ------
    Img2PromptError
        If an embedding is not finite.
    """
    if not np.isfinite(np.sum(targets, dtype=np.float64)):
        raise Img2PromptError(
            "targets hold NaN or infinity; run `verify()` on the cache, or extract them anew"
        )
    prompt = factorize(prompts)
    _, first = np.unique(prompt, return_index=True)
    group = similarity_components(unit(targets[first]), threshold)[prompt]
    if images is not None:
        group = merge_groups(group, factorize(images))
    return factorize(group.tolist())


def merge_groups(one: Rows, other: Rows) -> Rows:
    """Merge two groupings: rows that share a group in either are in one group. Numbers start at 0."""
    other = one.max(initial=-1) + 1 + other
    return edge_components(other.max(initial=-1) + 1, one, other)[one]


def factorize(values: Sequence[Hashable]) -> Rows:
    """Number the distinct values from 0 in the order of first appearance, like `pandas.factorize`."""
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int64, len(values))
