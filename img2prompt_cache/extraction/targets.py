"""Targets: the embedding of every row's prompt, each distinct prompt encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.manifest import Column, Part, part_file
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.reader import gather, require_whole
from img2prompt_cache.extraction.clock import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.encoders.base import Encoder


class Earlier:
    """Reads what a cache holds; each part is checked against its hash before it is first used.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: set[str] = set()

    def values(self, column: Column, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows of a numeric column: float32, shape (len(rows), *column.shape).

        Raises
        ------
        Img2PromptError
            If a part they lie in is damaged.
        """
        wanted = np.unique(np.searchsorted([part.stop for part in column.parts], rows, side="right"))
        parts = [column.parts[number] for number in wanted.tolist()]
        require_whole(self.folder, [part for part in parts if part.file not in self._checked])
        self._checked.update(part.file for part in parts)
        return gather(self.folder, column, rows)


def compute_targets(
    number: int,
    start: int,
    prompts: list[str],
    first: NDArray[np.int64],
    column: Column,
    encoder: Encoder,
    earlier: Earlier,
    folder: Path,
    clock: Clock,
) -> Part:
    """Encode the prompts of one part.

    A prompt that stood in an earlier part is copied from there, so what a part holds depends on the order of
    rows alone, not on where a pass was interrupted.

    Parameters
    ----------
    number, start : int
        The part and its first row.
    prompts : list of str
        Of its rows; empty where there is none, which gives a row of NaN.
    first : numpy.ndarray, int64, shape (rows of the cache,)
        For every row, the first row with the same prompt.
    column : Column
        With every part before this one.
    encoder : Encoder
        Of the column.
    earlier : Earlier
        Reads them.
    folder : pathlib.Path
        Where the part is written: the cache's folder, or another.
    clock : Clock
        Charged with the time.

    Returns
    -------
    Part

    Raises
    ------
    Img2PromptError
        If an earlier part that is copied from is damaged.
    """
    values = np.full((len(prompts), *column.shape), np.nan, np.float32)
    source = first[start : start + len(prompts)]
    here = source >= start
    has = np.array([bool(prompt.strip()) for prompt in prompts], bool)
    fresh = np.flatnonzero(has & (source == np.arange(start, start + len(prompts))))
    with clock.timed(column.spec):
        if len(fresh):
            values[fresh] = encoder.encode([prompts[row] for row in fresh])
    again = np.flatnonzero(has & here)
    values[again] = values[source[again] - start]
    before = np.flatnonzero(has & ~here)
    if len(before):
        values[before] = earlier.values(column, source[before])
    name = part_file(column.folder, number)
    with clock.timed("write"), PartFile(folder / name) as file:
        file.create("values", values.shape, column.dtype)
        file.write("values", 0, values)
        size, sha256 = file.commit()
    return Part(name, start, start + len(prompts), size, sha256)
