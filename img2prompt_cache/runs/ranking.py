"""Pictures of a cache by a number for each: what `search` and `top` have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.image_files import ImageFiles
from img2prompt_cache.prediction.cached_rows import best_first, steps
from img2prompt_cache.progress import Callback, task
from img2prompt_cache.tables import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

TOP = 10
"""Pictures that are given unless a number is asked for."""

Measure = Callable[["Rows"], "F32"]
"""Gives a number for each of some rows; NaN where a row has none."""


@dataclass(frozen=True, slots=True, eq=False)
class RankedPictures:
    """The usable rows of a cache, to be ranked: neither those that failed nor those that were removed.

    Attributes
    ----------
    cache : Cache
    rows : numpy.ndarray, int64, shape (n,)
        Row numbers in the cache, ascending.
    ids, prompts : list of str, length n
        A prompt is empty where there is none.
    """

    cache: Cache
    rows: Rows
    ids: list[str]
    prompts: list[str]

    @classmethod
    def of(cls, cache: Cache) -> Self:
        """Read which rows can be used.

        Raises
        ------
        Img2PromptError
            If a part is damaged.
        """
        text = cache.text("imgId", "prompt", "status")
        rows = np.flatnonzero([status == OK for status in text["status"]])
        ids, prompts = ([text[name][row] for row in rows.tolist()] for name in ("imgId", "prompt"))
        return cls(cache, rows, ids, prompts)

    def measure(self, by: Measure, name: str, tell: Callback) -> F32:
        """Measure every row, some at a time, as the steps of a task of this name; shape (n,)."""
        values = np.full(len(self.rows), np.nan, np.float32)
        with task(tell, name, len(self.rows)) as advance:
            done = 0
            for piece in steps(self.rows):
                values[done : done + len(piece)] = by(piece)
                done += len(piece)
                advance(len(piece))
        return values

    def best(self, name: str, values: F32, top_k: int, *, worst: bool = False) -> Records:
        """Give the pictures with the highest values, or the lowest; those without a value are left out.

        Parameters
        ----------
        name : str
            What the values are called.
        values : numpy.ndarray, float32, shape (n,)
        top_k : int
        worst : bool
            The lowest, first of all the lowest one.

        Returns
        -------
        Records
            `row` in the cache, `imgId`, the value, `prompt` (its own; empty where it has none) and `file`
            (None where it lies in an archive, or is gone).
        """
        files = ImageFiles(self.cache)
        return Records(
            {
                "row": (row := int(self.rows[at])),
                "imgId": self.ids[at],
                name: float(values[at]),
                "prompt": self.prompts[at],
                "file": None if (file := files.path(row)) is None else str(file),
            }
            for at in best_first(-values if worst else values, top_k).tolist()
        )


def require_some(top_k: int) -> None:
    """Refuse to give no picture.

    Raises
    ------
    UsageError
        If `top_k` is below 1.
    """
    if top_k < 1:
        raise UsageError(f"`top_k` must be at least 1, not {top_k}", parameter="top_k")
