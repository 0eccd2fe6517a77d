"""A linear stand-in for a text encoder: what an edit of a text does to its embedding, about.

A text's embedding is close to a weighted sum of its phrases' embeddings, scaled to unit length, because
sentence encoders average over tokens. Where the embedding of a text is known, only the edit is taken to be
linear. Weights are square roots of the numbers of words: so what 864 additions to prompts were estimated to
gain had a correlation of 0.85 with what they gained in MiniLM (0.80 with the numbers themselves), and of 576
additions to captions 0.54 (0.52).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


def weight(words: int) -> float:
    """Weigh a text or a phrase by its number of words."""
    return math.sqrt(words)


def added(base: F32, weights: F32, phrases: F32, shares: F32, goal: F32) -> F32:
    """Estimate the cosine to a goal of each of some texts with each of some phrases added.

    Parameters
    ----------
    base : numpy.ndarray, float32, shape (b, dim)
        Unit-norm embeddings of texts.
    weights : numpy.ndarray, float32, shape (b,)
        Their weights.
    phrases : numpy.ndarray, float32, shape (p, dim)
        Unit-norm embeddings of phrases.
    shares : numpy.ndarray, float32, shape (p,)
        Their weights.
    goal : numpy.ndarray, float32, shape (dim,)
        Unit norm.

    Returns
    -------
    numpy.ndarray, float32, shape (b, p)
    """
    dots = base @ phrases.T
    wide = weights[:, None]
    along = wide * (base @ goal)[:, None] + shares * (phrases @ goal)
    squared = wide**2 + shares**2 + 2 * wide * shares * dots
    estimates: F32 = along / np.sqrt(np.maximum(squared, 1e-12))
    return estimates


def removed(base: F32, whole: float, phrase: F32, share: float) -> F32:
    """Estimate the embedding of a text without one of its phrases; unit norm, shape (dim,)."""
    rest = whole * base - share * phrase
    size = float(np.linalg.norm(rest))
    estimate: F32 = (rest / size if size > 1e-6 else base).astype(np.float32)
    return estimate
