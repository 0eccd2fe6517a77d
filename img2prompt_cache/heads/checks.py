"""What every head asks of its input before it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.data.feature_blocks import width
from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Features, Groups, Targets


def training(
    X: Features, y: Targets, groups: Groups | None, blocks: tuple[int, ...] | None
) -> tuple[Features, Targets, Groups, tuple[int, ...]]:
    """Check the arguments of `Head.fit` and fill in the absent ones.

    Returns
    -------
    X, y : numpy.ndarray, float32, shapes (n, p) and (n, t)
    groups : numpy.ndarray, int64, shape (n,)
        Each row its own where there were none.
    blocks : tuple of int
        (p,) where there were none.

    Raises
    ------
    ValueError
        If the shapes do not fit each other: a mistake of the caller, not of the data.
    Img2PromptError
        If there are no rows, or a value is not finite.
    """
    if X.ndim != 2:
        raise ValueError(f"features {X.shape} must be a matrix")
    y, groups, blocks = pairs(X, y, groups, blocks)
    return finite("features", X), y, groups, blocks


def pairs(
    X: Any, y: Targets, groups: Groups | None, blocks: tuple[int, ...] | None
) -> tuple[Targets, Groups, tuple[int, ...]]:
    """Check the same where `X` (n, …) need not be a matrix, and without looking into it.

    Returns
    -------
    y, groups, blocks
        As `training` gives them.

    Raises
    ------
    ValueError, Img2PromptError
        As `training`.
    """
    if y.ndim != 2 or len(X) != len(y):
        raise ValueError(f"features {X.shape} and targets {y.shape} must be of as many rows")
    if len(X) == 0:
        raise Img2PromptError("there are no pairs to fit a head on")
    groups = np.arange(len(X)) if groups is None else groups
    blocks = (width(X),) if blocks is None else tuple(blocks)
    if groups.shape != (len(X),) or sum(blocks) != width(X):
        raise ValueError(f"groups {groups.shape} and blocks {blocks} do not fit features {X.shape}")
    return finite("targets", y), groups, blocks


def queries(X: Features, width: int) -> Features:
    """Check the argument of `Head.predict` against the width the head was fitted on.

    Raises
    ------
    Img2PromptError
        If the width differs or a value is not finite.
    """
    if X.ndim != 2 or X.shape[1] != width:
        raise Img2PromptError(f"features of shape {X.shape} do not fit a head fitted on {width} columns")
    return finite("features", X)


def finite(what: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Give `values` as float32, having checked that each is finite.

    Raises
    ------
    Img2PromptError
        Naming `what` and the first bad row.
    """
    # A float64 sum of float32 values cannot overflow, so it is finite exactly when they all are.
    if not np.isfinite(np.sum(values, dtype=np.float64)):
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))[0])
        raise Img2PromptError(
            f"{what} hold NaN or infinity, first in row {row}; "
            "run `verify` on the cache, or extract them anew"
        )
    return np.asarray(values, np.float32)


def take(state: Mapping[str, NDArray[Any]], name: str, *shape: int | None) -> NDArray[Any]:
    """Take one array out of a head's saved state.

    Parameters
    ----------
    state : mapping of str to numpy.ndarray
    name : str
    *shape : int or None
        The shape it must have; None where any width will do.

    Raises
    ------
    Img2PromptError
        If it is missing, has another shape or holds NaN or infinity.
    """
    if name not in state:
        raise Img2PromptError(f"the saved head lacks {name!r}; fit it again")
    array = state[name]
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.isfinite(np.sum(array, dtype=np.float64)):
        raise Img2PromptError(
            f"the saved head's {name!r}, {array.dtype} {array.shape}, is not what was fitted; fit it again"
        )
    return array
