"""Ridge regression from Gram matrices: all folds and penalties from a single pass over the rows.

With features x, targets y, weights w and a scale s per column, ridge regression minimises
Σ w‖y − b − W'(s∘(x − m))‖² + α‖W‖², where m and b are the weighted means of the training rows (Hoerl &
Kennard, 1970; the objective of scikit-learn's `Ridge`). The solution depends only on the sums of x, y, xx',
xy' and ‖y‖² over the rows. The sums of the training rows are the total minus those of the held-out fold, so
one pass serves all folds. The squared error on a fold depends only on its sums, too: p² + pt numbers, however
many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add, sub
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.row_blocks import over_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from img2prompt_cache.numerics.row_blocks import Matrix

    F32 = NDArray[np.float32]
    F64 = NDArray[np.float64]

ROWS = 8192
"""Largest number of rows copied to float64 at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A chunk of rows with the fold of each.

    Attributes
    ----------
    x, y : numpy.ndarray, float16 or float32, shapes (m, p) and (m, t)
    fold : numpy.ndarray, int64, shape (m,)
    weight : numpy.ndarray, shape (m,), optional
        Weight of each row, ≥ 0; without it every row has the weight 1.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    fold: NDArray[np.int64]
    weight: F64 | None = None

    def of_fold(self, fold: int) -> Iterable[tuple[F32, F32, F64]]:
        """Yield the rows of one fold in float32 with their weights, at most `ROWS` at a time."""
        inside = np.flatnonzero(self.fold == fold)
        for start in range(0, len(inside), ROWS):
            rows = inside[start : start + ROWS]
            weight = np.ones(len(rows)) if self.weight is None else self.weight[rows]
            yield (
                self.x[rows].astype(np.float32, copy=False),
                self.y[rows].astype(np.float32, copy=False),
                weight,
            )


@dataclass(frozen=True, slots=True, eq=False)
class Buffers:
    """Buffers for the intermediate results of `Sums.add`: reusing memory is faster than allocating it anew.

    Attributes
    ----------
    x, y : numpy.ndarray, float64, shapes (`ROWS`, p) and (`ROWS`, t)
    xx, yx : numpy.ndarray, float64, shapes (p, p) and (t, p)
        y'x is computed instead of x'y because a product with more columns than rows is faster.
    """

    x: F64
    y: F64
    xx: F64
    yx: F64

    @classmethod
    def of(cls, p: int, t: int) -> Buffers:
        """Allocate buffers for p features and t targets."""
        return cls(np.empty((ROWS, p)), np.empty((ROWS, t)), np.empty((p, p)), np.empty((t, p)))


@dataclass(slots=True, eq=False)
class Sums:
    """Weighted sums over rows in float64; x is measured from a shift that all sums of one pass share.

    Attributes
    ----------
    shift : numpy.ndarray, float64, shape (p,)
        Subtracted from each x, so that features far from zero lose no digits and constant ones become zero.
    n : float
        Sum of the weights: the number of rows, if these have no weights.
    x, y : numpy.ndarray, float64, shapes (p,) and (t,)
    xx, xy : numpy.ndarray, float64, shapes (p, p) and (p, t)
    yy : float
        Sum of squares of y.
    """

    shift: F64
    n: float
    x: F64
    y: F64
    xx: F64
    xy: F64
    yy: float

    @classmethod
    def empty(cls, shift: F64, t: int) -> Sums:
        """Make sums over no rows, for p = len(shift) features and t targets."""
        p = len(shift)
        return cls(shift, 0.0, np.zeros(p), np.zeros(t), np.zeros((p, p)), np.zeros((p, t)), 0.0)

    def add(self, x: NDArray[Any], y: NDArray[Any], weight: F64, buffers: Buffers) -> None:
        """Add at most `ROWS` rows x (m, p) with their targets y (m, t) and weights (m,)."""
        a, b = buffers.x[: len(x)], buffers.y[: len(y)]
        np.subtract(x, self.shift, out=a)
        b[:] = y
        self.n += float(weight.sum())
        self.x += weight @ a
        self.y += weight @ b
        if (weight != 1).any():
            root = np.sqrt(weight)[:, None]
            a *= root
            b *= root
        self.xx += np.matmul(a.T, a, out=buffers.xx)
        self.xy += np.matmul(b.T, a, out=buffers.yx).T
        self.yy += float(np.vdot(b, b))

    def __add__(self, other: Sums) -> Sums:
        return self._with(other, add)

    def __sub__(self, other: Sums) -> Sums:
        return self._with(other, sub)

    def _with(self, other: Sums, operation: Callable[[Any, Any], Any]) -> Sums:
        names = [field.name for field in fields(self)][1:]
        return Sums(self.shift, *(operation(getattr(self, name), getattr(other, name)) for name in names))

    @property
    def means(self) -> tuple[F64, F64]:
        """Mean features (p,), measured from the shift, and mean target (t,)."""
        return self.x / self.n, self.y / self.n

    def moments_about(self, origin: Sums, scale: F64) -> tuple[F64, F64, float]:
        """Compute second moments about the means of `origin`, with scaled features.

        Returns
        -------
        gram, cross : numpy.ndarray, float64, shapes (p, p) and (p, t)
            Sums of xx' and of xy'.
        square : float
            Sum of squares of the targets.
        """
        mean, target = origin.means
        half = self.x - self.n / 2 * mean
        gram = np.stack([half, mean], axis=1) @ np.stack([mean, half])
        np.subtract(self.xx, gram, out=gram)
        gram *= scale
        gram *= scale[:, None]
        cross = self.xy - np.outer(self.x, target) - np.outer(mean, self.y - self.n * target)
        cross *= scale[:, None]
        return gram, cross, float(self.yy - target @ (2 * self.y - self.n * target))


def accumulate(chunks: Iterable[Rows], folds: int, shift: F64 | None = None) -> list[Sums]:
    """Compute the sums of each fold in one pass over the rows.

    Parameters
    ----------
    chunks : iterable of Rows
        At least one; chunks with a few thousand rows of each fold are the fastest.
    folds : int
        Number of folds, which are numbered 0…`folds`−1.
    shift : numpy.ndarray, float64, shape (p,), optional
        That of the sums; the mean of the first rows if absent.

    Returns
    -------
    list of Sums, length `folds`

    Raises
    ------
    Img2PromptError
        If a value is not finite.
    """
    by_fold: list[Sums] = []
    for chunk in chunks:
        with np.errstate(invalid="ignore"):  # an error is raised below
            if not by_fold:
                shift = _mean_of_first(chunk) if shift is None else shift
                t = chunk.y.shape[1]
                by_fold, buffers = [Sums.empty(shift, t) for _ in range(folds)], Buffers.of(len(shift), t)
            for number, sums in enumerate(by_fold):
                for x, y, weight in chunk.of_fold(number):
                    sums.add(x, y, weight, buffers)
        # A float64 sum of float32 values cannot overflow, so it is finite exactly when they all are.
        if not all(np.isfinite(sums.x).all() and np.isfinite(sums.y).all() for sums in by_fold):
            raise Img2PromptError(
                "features or targets hold NaN or infinity; run `verify()` on the cache, or extract them anew"
            )
    return by_fold


def accumulate_parts(
    chunks: Callable[[slice], Iterable[Rows]], matrices: Sequence[Matrix], folds: int
) -> list[Sums]:
    """Compute the sums of each fold as `accumulate` does, by workers where there are any.

    The sums of parts of the rows are added in the order of the rows, so the result does not depend on which
    was computed first.

    Parameters
    ----------
    chunks : callable
        Gives some of the rows.
    matrices : sequence of numpy.ndarray, or of what is indexed like one
        What it reads; see `over_rows`.
    folds : int

    Raises
    ------
    Img2PromptError
        If a value is not finite, or a worker fails.
    """
    with np.errstate(invalid="ignore"):  # `accumulate` raises an error
        shift = _mean_of_first(next(iter(chunks(slice(0, min(ROWS, len(matrices[0])))))))
    parts = over_rows(lambda part: accumulate(chunks(part), folds, shift), matrices)
    return reduce(lambda total, part: [*map(add, total, part)], parts)


def _mean_of_first(chunk: Rows) -> F64:
    mean: F64 = chunk.x[:ROWS].mean(axis=0, dtype=np.float64)
    return mean


def block_scale(sums: Sums, widths: Sequence[int]) -> F64:
    """Compute the scale that gives each block of columns a total variance of 1.

    The penalty then treats all backbones alike, however large their values are and however many features they
    have, while the columns within a block keep their relative scales. A constant block is not scaled.

    Parameters
    ----------
    sums : Sums
    widths : sequence of int
        Widths that sum to p.

    Returns
    -------
    numpy.ndarray, float64, shape (p,)
    """
    variance = np.diagonal(sums.xx) / sums.n - (sums.x / sums.n) ** 2
    edges = np.cumsum(widths)[:-1]
    total = np.array([max(block.sum(), 0.0) for block in np.split(variance, edges)])
    return np.repeat(1.0 / np.sqrt(np.where(total > 0, total, 1.0)), widths)


def solve(sums: Sums, scale: F64, alpha: float | F64) -> tuple[F32, F32, F32]:
    """Solve ridge regression for one penalty.

    Parameters
    ----------
    sums : Sums
        Sums over the training rows.
    scale : numpy.ndarray, float64, shape (p,)
    alpha : float, or numpy.ndarray of shape (p,)
        Penalty, above 0, as in scikit-learn's `Ridge`; or one for each column.

    Returns
    -------
    mean, coef, intercept : numpy.ndarray, float32, shapes (p,), (p, t), (t,)
        Predictions are ``(x − mean) @ coef + intercept`` for unscaled features: `coef` includes the scale.

    Raises
    ------
    Img2PromptError
        If the penalty is too small for a unique solution in float64.
    """
    gram, cross, _ = sums.moments_about(sums, scale)
    coef = linalg.cho_solve(cholesky(gram, alpha), cross, overwrite_b=True) * scale[:, None]
    mean, intercept = sums.means
    return (
        (sums.shift + mean).astype(np.float32),
        coef.astype(np.float32, order="C"),
        intercept.astype(np.float32),
    )


def cholesky(gram: F64, alpha: float | F64, *, lower: bool = False) -> tuple[F64, bool]:
    """Compute the Cholesky factor of a Gram matrix (p, p), which is overwritten, plus a penalty.

    The result is that of `scipy.linalg.cho_factor`: only one of its triangles is meaningful.

    Raises
    ------
    Img2PromptError
        If the penalty is too small for a unique solution in float64.
    """
    gram[np.diag_indices_from(gram)] += alpha
    try:
        found: tuple[F64, bool] = linalg.cho_factor(gram, lower=lower, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        raise Img2PromptError(
            f"penalty {np.min(alpha):g} is too small for these features, some of which are linear "
            "combinations of others; raise it"
        ) from None
    return found
