"""Predictions of a head block by block, and those for rows that the head was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.data.feature_blocks import select_blocks
from img2prompt_cache.numerics.blending import mix
from img2prompt_cache.numerics.disk_array import is_mapped
from img2prompt_cache.numerics.kept_rows import collect, kept_rows
from img2prompt_cache.numerics.row_blocks import BLOCK, in_blocks

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from img2prompt_cache.data.feature_blocks import AnyFeatures, Ranges
    from img2prompt_cache.heads.base import Groups, Head, Targets
    from img2prompt_cache.heads.fitting_rows import FittingRows
    from img2prompt_cache.numerics.blending import F64
    from img2prompt_cache.numerics.row_blocks import Matrix


def as_rows(kept: NDArray[Any]) -> ColumnRows:
    """Give rows that were kept on disk as such that are read from the file when they are used."""
    return ColumnRows([kept], np.arange(len(kept)))


def below(
    rows: NDArray[np.float32] | ColumnRows, others: NDArray[np.float32] | ColumnRows
) -> NDArray[np.float32] | ColumnRows:
    """Put other rows below some, of which nothing is read if they are ColumnRows of the same columns."""
    if isinstance(rows, ColumnRows) and isinstance(others, ColumnRows) and rows.can_precede(others):
        return rows.followed_by(others)
    if isinstance(rows, np.ndarray) and isinstance(others, np.ndarray):
        return np.concatenate([rows, others])
    pieces = (block for each in (rows, others) for _, (block,) in in_blocks([each]))
    return as_rows(collect(pieces, len(rows) + len(others), rows.shape[1], on_disk=True))


def made_rows(make: Callable[..., Targets], matrices: Sequence[Matrix], width: int) -> Targets | ColumnRows:
    """Make rows of matrices as `kept_rows` does; those on disk are read when they are used."""
    kept = kept_rows(make, matrices, width)
    return as_rows(kept) if is_mapped(kept) else kept


def mixed_rows(predictions: Sequence[Targets | ColumnRows], weights: F64) -> Targets | ColumnRows:
    """Mix predictions as `blending.mix` does, block by block; the mix is kept where they are."""
    by_row = np.broadcast_to(weights, (len(predictions[0]), weights.shape[-1]))
    return made_rows(lambda own, *members: mix(members, own), [by_row, *predictions], predictions[0].shape[1])


def blocks_predicted(head: Head, X: AnyFeatures) -> Iterator[Targets]:
    """Predict features block by block, so that no more of them need be in memory."""
    for start in range(0, len(X), BLOCK):
        yield head.predict(X[start : start + BLOCK])


def predict_all(head: Head, X: AnyFeatures, width: int) -> Targets | ColumnRows:
    """Predict features block by block; predictions are kept on disk where the features are.

    Parameters
    ----------
    head : Head
        Fitted.
    X : numpy.ndarray, ColumnRows, TrunkRows or FeatureBlocks, shape (n, …)
    width : int
        Of a prediction.

    Raises
    ------
    Img2PromptError
        If the disk has too little room.
    """
    on_disk = isinstance(X, ColumnRows) and len(X) > 0
    found = collect(blocks_predicted(head, X), len(X), width, on_disk=on_disk)
    return as_rows(found) if on_disk else found


def predict_by_folds(
    fit: Callable[[FittingRows], Head],
    rows: FittingRows,
    columns: Ranges,
    fold: Groups,
    advance: Callable[[int], None],
) -> Targets | ColumnRows:
    """Predict each row of a fold by a head that was fitted on all rows outside of it.

    Parameters
    ----------
    fit : callable
        Gives a head that is fitted on some of the rows.
    rows : FittingRows
    columns : sequence of (int, int)
        The features that the head takes.
    fold : numpy.ndarray, int64, shape (n,)
        0…k−1; −1 for rows that are only fitted on.
    advance : callable
        Called with 1 after each fold.

    Returns
    -------
    numpy.ndarray, float32, shape (m, t); or ColumnRows
        In the order of the m rows that are of a fold. Kept on disk where rows are read when they are used.

    Raises
    ------
    Img2PromptError
        If the disk has too little room.
    """
    count = int(fold.max()) + 1
    # Folds come one after the other; this tells where in that order each row is.
    order = np.concatenate([np.flatnonzero(fold == number) for number in range(count)])
    place = np.argsort(order)

    def pieces() -> Iterator[Targets]:
        for number in range(count):
            held = fold == number
            yield from blocks_predicted(fit(rows[~held]), select_blocks(rows.X[held], columns))
            advance(1)

    on_disk = isinstance(rows.X, ColumnRows)
    found = collect(pieces(), len(order), rows.y.shape[1], on_disk=on_disk)
    return ColumnRows([found], place) if on_disk else found[place]
