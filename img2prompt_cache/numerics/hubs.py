"""Hubs: prompts that are near to every prediction, whatever the image, and a correction for them.

A regression draws predictions towards the mean target, so prompts near the mean are shown for every image.
They rank lower if each prompt's mean cosine with known predictions is subtracted from its cosine with a
prediction q, as normalisations of cross-modal retrieval do (QB-Norm: Bogolin et al., 2022; NNN: Chowdhury et
al., 2024). The mean over predictions p of p·b is m·b, with m their mean, so what is ranked is (q − α m)·b: a
search with another query, which takes no longer and fits every index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

ALPHA = 0.5
"""Share of a prompt's mean cosine that is subtracted (`benchmarks/hubness.py`)."""


def corrected_queries(predictions: F32, mean: F32) -> F32:
    """Compute the queries whose nearest prompts are those of the predictions, corrected for hubs.

    Parameters
    ----------
    predictions : numpy.ndarray, float32, shape (n, t)
        Unit-norm.
    mean : numpy.ndarray, float32, shape (t,)
        The mean of unit predictions for other images, not scaled to length 1.

    Returns
    -------
    numpy.ndarray, float32, shape (n, t)
        Unit-norm.
    """
    return unit(predictions - np.float32(ALPHA) * mean)
