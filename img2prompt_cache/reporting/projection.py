"""Projections of vectors onto a plane, and clusters with names, for maps."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.reporting.words import content_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

FEWEST = 100
"""Rows below which t-SNE says less than principal components."""
PERPLEXITY = 30
EARLY, LATE = 200, 500
"""Iterations with and without exaggeration."""
MOST_CLUSTERS, ROWS_PER_CLUSTER = 8, 20
NAMED_BY = 3


def project(vectors: F32, seed: int = 0) -> tuple[F32, str]:
    """Place vectors on a plane, so that near ones are near: by t-SNE, or by principal components.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)
        Unit norm.
    seed : int

    Returns
    -------
    places : numpy.ndarray, float32, shape (n, 2)
        In 0…1 along both axes, the same scale for both.
    method : str
        ``"t-SNE"`` or ``"PCA"``; the latter for few vectors, and where openTSNE is not installed.
    """
    places = None
    if len(vectors) >= FEWEST:
        places = _t_sne(vectors, seed)
    if places is None:
        return _fitted(_principal(vectors)), "PCA"
    return _fitted(places), "t-SNE"


def cluster(vectors: F32, seed: int = 0) -> Rows:
    """Cluster unit vectors by k-means: √(n/20) clusters, 8 at most, numbered from 0, the largest first."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(vectors.round(5), axis=0))
    k = min(max(round((len(vectors) / ROWS_PER_CLUSTER) ** 0.5), 1), MOST_CLUSTERS, distinct)
    label = KMeans(k, n_init=2, random_state=seed).fit_predict(vectors)
    order = np.argsort(-np.bincount(label, minlength=k), kind="stable")
    found: Rows = np.argsort(order)[label].astype(np.int64)
    return found


def name_clusters(prompts: Sequence[str], label: Rows) -> list[str]:
    """Name each cluster by the words that are frequent in it and rare elsewhere.

    A word weighs p·log(p/q), for its shares p of the prompts of the cluster and q of all prompts.
    """
    words = [{*content_words(prompt)} for prompt in prompts]
    everywhere = Counter(word for each in words for word in each)
    names = []
    for number in range(int(label.max(initial=-1)) + 1):
        inside = [words[row] for row in np.flatnonzero(label == number).tolist()]
        counts = Counter(word for each in inside for word in each)
        weight = {
            word: (share := count / len(inside)) * float(np.log(share * len(words) / everywhere[word]))
            for word, count in counts.items()
        }
        best = sorted(weight, key=lambda word: (-weight[word], word))[:NAMED_BY]
        names.append(", ".join(best) or "no words")
    return names


def _t_sne(vectors: F32, seed: int) -> F32 | None:
    try:
        from openTSNE import TSNE
    except ImportError:
        return None
    # Rows that are equal have no direction from each other; a little noise gives them one.
    rng = np.random.default_rng(seed)
    moved = vectors + rng.normal(0, 1e-4, vectors.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = TSNE(
            perplexity=min(PERPLEXITY, (len(vectors) - 1) / 3),
            metric="cosine",
            initialization="pca",
            early_exaggeration_iter=EARLY,
            n_iter=LATE,
            random_state=seed,
            n_jobs=1,
        ).fit(moved)
    return np.asarray(found, np.float32)


def _principal(vectors: F32) -> F32:
    """Project onto the first two principal components; the largest entry of each axis is positive."""
    centred = vectors - vectors.mean(axis=0)
    if len(vectors) < 2:
        return np.zeros((len(vectors), 2), np.float32)
    _, _, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    axes = axes[:2]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    places = np.zeros((len(vectors), 2))
    places[:, : len(axes)] = centred @ axes.T
    return places.astype(np.float32)


def _fitted(places: F32) -> F32:
    """Move and scale places into the unit square."""
    low, high = places.min(axis=0), places.max(axis=0)
    scale = float((high - low).max()) or 1.0
    centred = (places - (low + high) / 2) / scale + 0.5
    found: F32 = np.clip(centred, 0, 1).astype(np.float32)
    return found
