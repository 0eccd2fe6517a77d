"""Batches of texts: of similar length, and as many as fit a number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_CHARACTERS = 1 << 21
"""Characters, padded to the longest text, that are tokenized at once: some 50 MB of token ids at most."""


def blocks(texts: Sequence[str], characters: int = BLOCK_CHARACTERS) -> Iterator[NDArray[np.int64]]:
    """Split texts into blocks that are tokenized at once, the longest texts first.

    Yields
    ------
    numpy.ndarray, int64
        Indices of the texts of a block. Together they are all, each once.
    """
    yield from batches(np.array([len(text) for text in texts], np.int64), characters)


def batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Split texts into batches of similar length, the longest texts first.

    Parameters
    ----------
    lengths : numpy.ndarray, int64, shape (n,)
        Of the texts.
    budget : int
        Most that a batch holds, each of its texts padded to the longest of them; of a longer text, one.

    Yields
    ------
    numpy.ndarray, int64
        Indices of the texts of a batch. Together they are all, each once; texts of equal length stay in
        their order.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start:stop]
        start = stop
