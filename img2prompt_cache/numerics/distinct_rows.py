"""Distinct rows of a matrix that need not fit into memory."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.numerics.row_blocks import in_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.numerics.row_blocks import Matrix

BYTES = 64
"""Of memory for each row: its digest, and what sorting takes."""


def first_rows(matrix: Matrix) -> NDArray[np.int64]:
    """Find the first of all rows that are equal, by digests of 128 bits of the rows.

    Parameters
    ----------
    matrix : numpy.ndarray, or what is indexed like one, shape (n, p)
        Of finite numbers; read block by block.

    Returns
    -------
    numpy.ndarray, int64, shape (m,)
        Numbers of rows, ascending.
    """
    digests = np.empty((len(matrix), 2), np.uint64)
    for rows, (block,) in in_blocks([matrix]):
        whole = np.ascontiguousarray(block + 0)  # of -0.0, too, which equals 0.0, this makes 0.0
        digests[rows] = [np.frombuffer(blake2b(row, digest_size=16).digest(), np.uint64) for row in whole]
    order = np.lexsort(digests.T)  # stable: equal rows stay in their order
    differs = np.any(digests[order[1:]] != digests[order[:-1]], axis=1)
    return np.sort(order[np.concatenate([np.ones(min(1, len(order)), np.bool_), differs])])
