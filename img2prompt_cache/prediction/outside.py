"""Predictions of another program that a blend has in the place of features, looked up by imgId."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.columns import OUTSIDE, UsedColumn
from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.heads.outside import Outside
from img2prompt_cache.tables import preview

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head


def of_images(features: Sequence[UsedColumn]) -> tuple[UsedColumn, ...]:
    """Select the columns that are computed from images."""
    return tuple(use for use in features if not use.spec.startswith(OUTSIDE))


class OutsideColumns:
    """The outside members of a fitted head, none in most.

    Parameters
    ----------
    features : sequence of UsedColumn
        What the head was fitted on: outside members come last.
    head : Head
    """

    def __init__(self, features: Sequence[UsedColumn], head: Head) -> None:
        self._names = [use.spec.removeprefix(OUTSIDE) for use in features if use.spec.startswith(OUTSIDE)]
        heads = head.heads_ if isinstance(head, Blend) else []
        # A member without weight is not kept: whatever stands in its place counts for nothing.
        records = head.members if isinstance(head, Blend) else ()
        self._heads = {
            str(record.get("run")): each
            for record, each in zip(records, heads, strict=True)
            if isinstance(each, Outside)
        }
        self._widths = [use.width for use in features if use.spec.startswith(OUTSIDE)]

    def __bool__(self) -> bool:
        return bool(self._names)

    def require(self, ids: Sequence[str]) -> None:
        """Check that each member has a prediction for every one of some images.

        Raises
        ------
        UsageError
            Naming the member and the images.
        """
        for name, head in self._heads.items():
            missing = head.missing(ids)
            if missing:
                raise UsageError(
                    f"{name}, a member of the blend that another program fitted, has no prediction for "
                    f"{len(missing)} of {len(ids)} images: {preview(missing, len(missing))}; predict the "
                    "images of its file, or blend without it",
                    parameter="images",
                )

    def find(self, ids: Sequence[str]) -> list[NDArray[np.float32]]:
        """Give the predictions of each member for some images that it has."""
        return [
            self._heads[name].find(ids) if name in self._heads else np.zeros((len(ids), width), np.float32)
            for name, width in zip(self._names, self._widths, strict=True)
        ]
