"""A linear stand-in for a text encoder: what an edit of a text does to its embedding, about.

A text's embedding is close to the sum of its phrases' embeddings, each times its number of words, scaled to
unit length, because sentence encoders average over tokens. Where the embedding of a text is known, only the
edit is taken to be linear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


def added(base: F32, weights: F32, phrases: F32, lengths: F32, goal: F32) -> F32:
    """Estimate the cosine to a goal of each of some texts with each of some phrases added.

    Parameters
    ----------
    base : numpy.ndarray, float32, shape (b, dim)
        Unit-norm embeddings of texts.
    weights : numpy.ndarray, float32, shape (b,)
        Their lengths in words.
    phrases : numpy.ndarray, float32, shape (p, dim)
        Unit-norm embeddings of phrases.
    lengths : numpy.ndarray, float32, shape (p,)
        Their lengths in words.
    goal : numpy.ndarray, float32, shape (dim,)
        Unit norm.

    Returns
    -------
    numpy.ndarray, float32, shape (b, p)
    """
    dots = base @ phrases.T
    wide = weights[:, None]
    along = wide * (base @ goal)[:, None] + lengths * (phrases @ goal)
    squared = wide**2 + lengths**2 + 2 * wide * lengths * dots
    estimates: F32 = along / np.sqrt(np.maximum(squared, 1e-12))
    return estimates


def removed(base: F32, weight: float, phrase: F32, length: float) -> F32:
    """Estimate the embedding of a text without one of its phrases; unit norm, shape (dim,)."""
    rest = weight * base - length * phrase
    size = float(np.linalg.norm(rest))
    estimate: F32 = (rest / size if size > 1e-6 else base).astype(np.float32)
    return estimate
