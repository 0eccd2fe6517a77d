"""Near-identical vectors across two sets: for each of many, whether a few hold one with a high cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import TIE
from img2prompt_cache.numerics.similarity_graph import SLACK, coordinates, principal_directions
from img2prompt_cache.progress import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.similarity_graph import Vectors

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

BLOCK = 2048
"""Vectors compared at a time, in blocks of this many by this many."""
READ = 16384
"""Vectors read at a time."""
FEW = 1 / 128
"""Up to this share of the pairs of some vectors with a block are compared one by one; of more, all are."""
PAIRS = 8192
"""Pairs compared one by one at a time."""


def near_partners(vectors: Vectors, others: F32, threshold: float) -> Rows:
    """For each unit vector, find one of the others with a cosine of at least the threshold.

    The search is exact. Most pairs are ruled out by the bound of `similarity_components`, along a few
    directions. Where float32 cannot tell on which side of the threshold a cosine is, it is computed in
    float64, so that neither the order nor the size of blocks changes which vectors have a partner. Memory:
    that of the others and of some blocks.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)
        Or an object whose rows and slices are such arrays; read once.
    others : numpy.ndarray, float32, shape (m, d)
    threshold : float
        Above `1 - TIE` it counts as that: cosines of equal vectors are 1 only up to rounding.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        Number of one of the others, or −1 where none is near.
    """
    threshold = min(threshold, 1 - TIE)
    partner = np.full(len(vectors), -1)
    if not len(others) or not len(vectors):
        return partner
    basis = principal_directions(others)
    sketch = others if basis is None else coordinates(others, basis)
    with stage("near-identical rows", -(-len(vectors) // READ)) as advance:
        for first in range(0, len(vectors), READ):
            read = vectors[first : first + READ]
            for start in range(0, len(read), BLOCK):
                block = read[start : start + BLOCK]
                short = block if basis is None else coordinates(block, basis)
                found = partner[first + start : first + start + len(block)]
                for other in range(0, len(others), BLOCK):
                    rows = np.flatnonzero(found < 0)
                    if not len(rows):
                        break
                    some = slice(other, other + BLOCK)
                    bounds = (short if len(rows) == len(short) else short[rows]) @ sketch[some].T
                    hit = _partners(block, rows, others[some], bounds, threshold)
                    near = hit >= 0
                    found[rows[near]] = hit[near] + other
            advance(1)
    return partner


def count_near_pairs(vectors: Vectors, others: F32, threshold: float) -> int:
    """Count the pairs of a vector and one of the others with a cosine of at least the threshold, one by one.

    All products are computed, and no bound is used, so this can check `near_partners`.

    Parameters
    ----------
    vectors, others, threshold
        As for `near_partners`.
    """
    threshold, count = min(threshold, 1 - TIE), 0
    for first in range(0, len(vectors), READ):
        read = vectors[first : first + READ]
        for start in range(0, len(read), BLOCK):
            block = read[start : start + BLOCK]
            for other in range(0, len(others), BLOCK):
                products = block @ others[other : other + BLOCK].T
                likely = np.flatnonzero(products >= threshold - SLACK)
                if len(likely):
                    left, right = np.divmod(likely, products.shape[1])
                    unsure = products[left, right] < threshold + SLACK
                    sure = int((~unsure).sum())
                    count += sure + int(
                        _near(block, others, left[unsure], right[unsure] + other, threshold).sum()
                    )
    return count


def _partners(block: F32, rows: Rows, others: F32, bounds: F32, threshold: float) -> Rows:
    """Find a partner of some rows of a block, −1 for none, given bounds of their cosines with the others."""
    hit = np.full(len(rows), -1)
    # The likeliest pair of each row first: where many are near, it settles most rows.
    best = bounds.argmax(axis=1)
    open_rows = np.flatnonzero(bounds[np.arange(len(rows)), best] >= threshold - SLACK)
    if not len(open_rows):
        return hit
    near = _near(block, others, rows[open_rows], best[open_rows], threshold)
    hit[open_rows[near]] = best[open_rows[near]]
    open_rows = open_rows[~near]
    left, right = np.nonzero(bounds[open_rows] >= threshold - SLACK)
    if len(left) <= FEW * len(open_rows) * len(others):
        near = _near(block, others, rows[open_rows[left]], right, threshold)
        hit[open_rows[left[near]]] = right[near]
        return hit
    products = block[rows[open_rows]] @ others.T
    best = products.argmax(axis=1)
    top = products[np.arange(len(open_rows)), best]
    sure = top >= threshold + SLACK
    hit[open_rows[sure]] = best[sure]
    left, right = np.nonzero((products >= threshold - SLACK) & ~sure[:, None])
    near = _near(block, others, rows[open_rows[left]], right, threshold)
    hit[open_rows[left[near]]] = right[near]
    return hit


def _near(one: F32, other: F32, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
    """Tell for pairs of vectors whether their cosine reaches the threshold, in float64 where it is close."""
    near = np.empty(len(left), bool)
    for first in range(0, len(left), PAIRS):
        some = slice(first, first + PAIRS)
        a, b = one[left[some]], other[right[some]]
        cosines = np.einsum("ij,ij->i", a, b)
        near[some] = cosines >= threshold
        close = np.flatnonzero(np.abs(cosines - np.float32(threshold)) < SLACK)
        if len(close):
            exact = np.einsum("ij,ij->i", a[close].astype(np.float64), b[close].astype(np.float64))
            near[first + close] = exact >= threshold
    return near
