"""The rows that members of an ensemble are fitted on, with all that tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from img2prompt_cache.data.feature_blocks import select_blocks, select_widths

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from img2prompt_cache.data.column_rows import ColumnRows
    from img2prompt_cache.data.feature_blocks import AnyFeatures, Ranges
    from img2prompt_cache.heads.base import Groups, Head, Targets


@dataclass(frozen=True, slots=True, eq=False)
class FittingRows:
    """Rows to fit members on.

    Attributes
    ----------
    X, y, groups, widths
        As for `Head.fit`; X and y may be ColumnRows.
    kinds : numpy.ndarray, int64, shape (n,)
        As `checks.kinds` gives them.
    """

    X: AnyFeatures
    y: Targets | ColumnRows
    groups: Groups
    widths: tuple[int, ...]
    kinds: Groups

    def __getitem__(self, index: NDArray[np.bool_]) -> FittingRows:
        return FittingRows(self.X[index], self.y[index], self.groups[index], self.widths, self.kinds[index])

    def fit(self, head: Head, columns: Ranges, *, extra: bool = True, **more: Any) -> None:
        """Fit a member on its columns; without `extra`, or if it has no use for kinds, on those of kind 0."""
        rows = self
        if self.kinds.any():
            if extra and head.takes_extra:
                more["kinds"] = self.kinds
            else:
                rows = self[self.kinds == 0]
        X, widths = select_blocks(rows.X, columns), select_widths(rows.widths, columns)
        head.fit(X, rows.y, groups=rows.groups, widths=widths, **more)
