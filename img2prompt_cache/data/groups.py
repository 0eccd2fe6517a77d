"""Groups: rows that must stay together because their prompts are near-identical or their images identical."""

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
"""Prompts whose embeddings have at least this cosine are near-identical."""


def prompt_groups(
    targets: NDArray[np.float32],
    prompts: Sequence[Hashable],
    images: Sequence[Hashable] | None = None,
    threshold: float = THRESHOLD,
) -> Rows:
    """Group rows whose prompts are near-identical or whose images are identical.

    Groups are the connected components of the graph that joins two rows when their prompts' embeddings have
    cosine ≥ `threshold`, when their prompts are equal, or when their images are. Each distinct prompt is
    compared once with each other one, in blocks: for m of them m²·d/2 multiply-adds, and memory for the edges
    of a few blocks, however many near-identical pairs there are.

    Parameters
    ----------
    targets : numpy.ndarray, float32, shape (n, d)
        Embedding of each row's prompt.
    prompts : sequence of hashable, length n
        Prompts, or anything that is equal where they are.
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
    prompt = codes(prompts)
    _, first = np.unique(prompt, return_index=True)
    group = similarity_components(unit(targets[first]), threshold)[prompt]
    if images is not None:
        group = merged(group, codes(images))
    return codes(group.tolist())


def merged(one: Rows, other: Rows) -> Rows:
    """Join rows that share a number in either; numbers are from 0."""
    other = one.max(initial=-1) + 1 + other
    return edge_components(other.max(initial=-1) + 1, one, other)[one]


def codes(values: Sequence[Hashable]) -> Rows:
    """Number equal values alike, from 0 in the order they first appear."""
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int64, len(values))
