"""Near-identical prompts: from which cosine of their embeddings on, in the space of any text encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.similarity_graph import Vectors

MINILM_THRESHOLD = 0.8
"""Prompts whose MiniLM embeddings have at least this cosine count as near-identical."""
MINILM_UNLIKE = 0.06
"""Lower quartile of the cosines of random pairs in MiniLM: -0.01 to 0.12 on three sets of prompts."""
PAIRS = 1 << 16
"""Random pairs from which the quartile is estimated; of fewer prompts than make so many pairs, all pairs."""
_BLOCK = 1 << 12
_MOST = 1 - 1e-6


def fit_threshold(vectors: Vectors) -> float:
    """Find the cosine that means in some encoder's space what 0.8 means in MiniLM's.

    Encoders differ in the cosine of prompts that have nothing in common: about 0 in MiniLM, 0.7 and more
    where all embeddings share a direction. The cosine of equal prompts is 1 everywhere. So the threshold lies
    as far between the two as MiniLM's does: with q, the lower quartile of the cosines of random pairs, it is
    q + s (1 - q), where s = (0.8 - 0.06) / (1 - 0.06) = 0.787 and 0.06 is that quartile in MiniLM. The
    quartile and not the median, because data sets differ in how many of their prompts are of one kind.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)
        Unit-norm embeddings of distinct prompts; or an object whose rows are such arrays.

    Returns
    -------
    float
        Its distance from 1 has three digits, so that another machine's rounding finds the same. MiniLM's
        threshold where there are fewer than two prompts.
    """
    if len(vectors) < 2:
        return MINILM_THRESHOLD
    unlike = float(np.quantile(_cosines(vectors), 0.25))
    share = (MINILM_THRESHOLD - MINILM_UNLIKE) / (1 - MINILM_UNLIKE)
    return min(1 - float(f"{(1 - share) * (1 - unlike):.3g}"), _MOST)


def _cosines(vectors: Vectors) -> NDArray[np.float64]:
    """Compute the cosines of random pairs of different rows, or of all pairs where these are few."""
    n = len(vectors)
    if n * (n - 1) // 2 <= PAIRS:
        one, other = np.triu_indices(n, 1)
    else:
        rng = np.random.default_rng(0)
        one = rng.integers(0, n, PAIRS)
        other = (one + rng.integers(1, n, PAIRS)) % n
    return np.concatenate(
        [
            np.einsum("ij,ij->i", vectors[one[block]], vectors[other[block]], dtype=np.float64)
            for block in (slice(start, start + _BLOCK) for start in range(0, len(one), _BLOCK))
        ]
    )
