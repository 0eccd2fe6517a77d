"""Ridge regression from Gram matrices: all folds and penalties from one streaming pass over the rows.

With features x, targets y and a scale s per column, ridge minimises Σ‖y − b − W'(s∘(x − m))‖² + α‖W‖², where
m and b are the means of the rows it is fitted on (Hoerl & Kennard, 1970; the objective of scikit-learn's
`Ridge`). It needs only sums over rows: of x, y, xx' and xy'. Those of a training side are the total less the
fold's, so each row is read once to fit every fold, and once more to score them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]
    Chunk = tuple[F32, F32, NDArray[np.int64]]


@dataclass(slots=True, eq=False)
class Sums:
    """Sums over rows in float64, with x taken relative to a shift that all sums of one pass share.

    Attributes
    ----------
    n : int
        Number of rows.
    shift : numpy.ndarray, float64, shape (p,)
        Taken off each x, so that features far from zero lose no digits and constant ones are exactly zero.
    x, y : numpy.ndarray, float64, shapes (p,) and (t,)
    xx, xy : numpy.ndarray, float64, shapes (p, p) and (p, t)
    """

    n: int
    shift: F64
    x: F64
    y: F64
    xx: F64
    xy: F64

    @classmethod
    def empty(cls, shift: F64, t: int) -> Sums:
        """Sums over no rows, for p = len(shift) features and t targets."""
        p = len(shift)
        return cls(0, shift, np.zeros(p), np.zeros(t), np.zeros((p, p)), np.zeros((p, t)))

    def add(self, x: F32, y: F32) -> None:
        """Take in rows x (m, p) with their targets y (m, t)."""
        a, b = x - self.shift, y.astype(np.float64)
        self.n += len(a)
        self.x += a.sum(axis=0)
        self.y += b.sum(axis=0)
        self.xx += a.T @ a
        self.xy += a.T @ b

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.n + other.n,
            self.shift,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.xy + other.xy,
        )

    def __sub__(self, other: Sums) -> Sums:
        return Sums(
            self.n - other.n,
            self.shift,
            self.x - other.x,
            self.y - other.y,
            self.xx - other.xx,
            self.xy - other.xy,
        )

    @property
    def means(self) -> tuple[F32, F32]:
        """Mean features (p,), shift included, and mean target (t,)."""
        return (self.shift + self.x / self.n).astype(np.float32), (self.y / self.n).astype(np.float32)

    def centred(self, scale: F64) -> tuple[F64, F64]:
        """Gram matrix (p, p) of the centred, scaled x, and its cross matrix (p, t) with the centred y."""
        gram = self.xx - np.outer(self.x, self.x / self.n)
        gram *= scale
        gram *= scale[:, None]
        cross = self.xy - np.outer(self.x, self.y / self.n)
        cross *= scale[:, None]
        return gram, cross


def accumulate(chunks: Iterable[Chunk], folds: int) -> list[Sums]:
    """Sum over each fold's rows, in one pass.

    Parameters
    ----------
    chunks : iterable of (x, y, fold)
        Shapes (m, p), (m, t) and (m,); at least one chunk.
    folds : int
        How many folds there are; fold numbers are 0…`folds`−1.

    Returns
    -------
    list of Sums, length `folds`
    """
    by_fold: list[Sums] = []
    for x, y, fold in chunks:
        if not by_fold:
            shift = x.mean(axis=0, dtype=np.float64)
            by_fold = [Sums.empty(shift, y.shape[1]) for _ in range(folds)]
        for number in np.unique(fold).tolist():
            by_fold[number].add(x[fold == number], y[fold == number])
    return by_fold


def block_scale(sums: Sums, blocks: Sequence[int]) -> F64:
    """Scale that gives each block of columns a total variance of 1.

    A backbone's features then count the same however large its numbers are, and however many it has, while
    within a block the directions keep their proportions. A constant block is left as it is.

    Parameters
    ----------
    sums : Sums
    blocks : sequence of int
        Widths that sum to p.

    Returns
    -------
    numpy.ndarray, float64, shape (p,)
    """
    variance = np.diagonal(sums.xx) / sums.n - (sums.x / sums.n) ** 2
    edges = np.cumsum(blocks)[:-1]
    total = np.array([max(block.sum(), 0.0) for block in np.split(variance, edges)])
    return np.repeat(1.0 / np.sqrt(np.where(total > 0, total, 1.0)), blocks)


def solve(sums: Sums, scale: F64, alpha: float) -> tuple[F32, F32, F32]:
    """Ridge regression for one penalty.

    Parameters
    ----------
    sums : Sums
        Over the rows to fit.
    scale : numpy.ndarray, float64, shape (p,)
    alpha : float
        Penalty, above 0, on the sum of squares as in scikit-learn's `Ridge`.

    Returns
    -------
    mean, coef, intercept : numpy.ndarray, float32, shapes (p,), (p, t), (t,)
        Predictions are ``(x − mean) @ coef + intercept`` for features as they come: the scale is in `coef`.

    Raises
    ------
    Img2PromptError
        If the penalty is too small for float64 to tell the solution from others.
    """
    gram, cross = sums.centred(scale)
    gram[np.diag_indices_from(gram)] += alpha
    try:
        factor = linalg.cho_factor(gram, overwrite_a=True)
    except linalg.LinAlgError:
        raise Img2PromptError(
            f"penalty {alpha:g} is too small for these features, some of which are linear in others; raise it"
        ) from None
    coef = linalg.cho_solve(factor, cross, overwrite_b=True) * scale[:, None]
    mean, intercept = sums.means
    return mean, coef.astype(np.float32, order="C"), intercept
