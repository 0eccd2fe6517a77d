"""Rows of features with their targets: what networks on features are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.errors import DataError, UsageError
from img2prompt_cache.heads import checks
from img2prompt_cache.heads.neural.epochs import Sides

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Targets
    from img2prompt_cache.heads.neural.settings import NetworkSettings


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Rows to train on.

    Attributes
    ----------
    X, y : numpy.ndarray, float32, or ColumnRows, shapes (n, p) and (n, t)
    views : numpy.ndarray, float16 or float32, shape (n, v, p), or None
        Features of augmented views of the same images.
    widths : tuple of int
        Of the blocks of `X`, as for `Head.fit`; empty for one block.
    """

    X: Features | ColumnRows
    y: Targets | ColumnRows
    views: NDArray[np.floating[Any]] | None = None
    widths: tuple[int, ...] = ()

    def select(self, out: NDArray[np.bool_]) -> Pairs:
        """Give some rows by a mask; features and targets are not copied."""
        views = None if self.views is None else self.views[out]
        return Pairs(_some(self.X, out), _some(self.y, out), views, self.widths)


def sides_of(pairs: Pairs, out: NDArray[np.bool_]) -> Sides[Pairs]:
    """Divide rows into those to train on and those held out."""
    return Sides(pairs.select(~out), (np.asarray(pairs.X[out]), np.asarray(pairs.y[out])))


def _some(values: Features | ColumnRows, rows: NDArray[np.bool_]) -> ColumnRows:
    return values[rows] if isinstance(values, ColumnRows) else ColumnRows([values], np.flatnonzero(rows))


def checked_views(
    head: NetworkSettings, views: NDArray[np.floating[Any]] | None, X: Features
) -> NDArray[np.floating[Any]] | None:
    """Check views against the features (n, p) of the images; none where the head is not trained on any.

    Raises
    ------
    UsageError
        If the head is to be trained on views and there are none.
    DataError
        If they do not fit the features, or a value is not finite.
    """
    if not head.views:
        return None
    if views is None:
        raise UsageError(f"{head.name} with `views=True` needs views, and there are none")
    if views.ndim != 3 or (views.shape[0], views.shape[2]) != X.shape:
        raise DataError(f"views {views.shape} do not fit features {X.shape}")
    checks.require_finite("views", views)
    return views
