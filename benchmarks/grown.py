"""Realistic unit vectors in any number, grown from real ones, for benchmarks of search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.neighbours import flat_index, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

NEAR = 20
NOISE = 0.5
CHUNK = 65536


def grow(real: F32, n: int, seed: int) -> tuple[F32, NDArray[np.int64]]:
    """Mix each new vector of a real one and one of its 20 nearest, and move it off by noise half as long.

    The noise is the difference of two random real vectors, so that it varies in the directions the real ones
    vary in, with a little in every direction.

    Parameters
    ----------
    real : numpy.ndarray, float32, shape (m, d)
        Unit norm.
    n, seed : int

    Returns
    -------
    vectors : numpy.ndarray, float32, shape (n, d)
        Unit norm.
    parents : numpy.ndarray, int64, shape (n,)
        The first row that each was mixed of.
    """
    vectors, parents = np.empty((n, real.shape[1]), np.float32), np.empty(n, np.int64)
    start = 0
    for some, one in grow_in_chunks(real, n, seed):
        rows = slice(start, start + len(one))
        vectors[rows], parents[rows] = some, one
        start = rows.stop
    return vectors, parents


def grow_in_chunks(real: F32, n: int, seed: int) -> Iterator[tuple[F32, NDArray[np.int64]]]:
    """Yield what `grow` returns, in chunks of at most `CHUNK` rows."""
    rng = np.random.default_rng(seed)
    near = nearest(flat_index(real), real, NEAR + 1)[1]
    parents = rng.integers(len(real), size=n)
    for start in range(0, n, CHUNK):
        one = parents[start : start + CHUNK]
        other = near[one, rng.integers(1, NEAR + 1, len(one))]
        share = rng.random((len(one), 1), np.float32)
        apart = real[rng.integers(len(real), size=len(one))] - real[rng.integers(len(real), size=len(one))]
        noise = unit(apart + 0.3 * unit(rng.standard_normal(apart.shape, np.float32)))
        mixed = unit(share * real[one] + (1 - share) * real[other])
        yield unit(mixed + NOISE * noise), one
