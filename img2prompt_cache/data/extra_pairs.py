"""Extra pairs: rows of other caches that a head is also fitted on, but never scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.near_rows import near_partners

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ExtraPairs:
    """Rows of other caches to fit on.

    Attributes
    ----------
    X, y : numpy.ndarray, float32, shapes (m, p) and (m, t)
        Features of the same columns as the rows they are added to, and targets.
    kinds : numpy.ndarray, int64, shape (m,)
        1 for the first cache, 2 for the second, …; see `heads.checks.kinds`.
    caches : tuple of str
        The folders.
    left_out : int
        Rows that were left out, because they are near-identical to a row they would be added to.
    """

    X: F32
    y: F32
    kinds: NDArray[np.int64]
    caches: tuple[str, ...]
    left_out: int


def near_any(vectors: F32, others: F32, threshold: float) -> NDArray[np.bool_]:
    """Tell which embeddings (m, t) have a cosine ≥ `threshold` with any of others (n, t).

    Both are to be in the column of a `Grouping`, and so is the threshold.
    """
    return near_partners(unit(vectors), unit(others), threshold) >= 0
