"""The rows of a damaged part of `rows`: which of its source's listing they can have been."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from img2prompt_cache.cache.manifest import Part
from img2prompt_cache.cache.part_text import read_text
from img2prompt_cache.errors import Img2PromptError


def salvage(path: Path, names: list[str], size: int) -> Mapping[str, list[str]]:
    """Read the text of a damaged part of `rows`; nothing where it cannot be read."""
    try:
        return read_text(path, names, size)
    except Img2PromptError:
        return {}


def find_neighbours(folder: Path, parts: Sequence[Part], number: int) -> tuple[str, str]:
    """Find the imgIds that enclose a part of `rows`.

    Returns
    -------
    before, after : str
        imgId of the last row of the part before it and of the first row of the part after it; empty where
        there is none of the same source, or it cannot be read.
    """
    found = ["", ""]
    for side, (other, row) in enumerate(((number - 1, -1), (number + 1, 0))):
        if 0 <= other < len(parts) and parts[other].source == parts[number].source:
            part = parts[other]
            names = salvage(folder / part.file, ["imgId"], part.stop - part.start).get("imgId")
            found[side] = names[row] if names else ""
    return found[0], found[1]


class LostRows:
    """Finds in the listing of a source the rows that a part held.

    Parameters
    ----------
    table : pyarrow.Table
        The listing, with an `imgId` in every row.
    known : set of str
        The imgIds that other parts hold. Whoever finds a part adds those of the part.
    """

    def __init__(self, table: pa.Table, known: set[str]) -> None:
        self.table = table
        self._known = known
        self._ids: list[str] = table["imgId"].to_pylist()
        self._row_of = {name: row for row, name in enumerate(self._ids)}

    def __len__(self) -> int:
        """Count the rows that no other part holds."""
        return sum(name not in self._known for name in self._ids)

    def candidates(
        self, size: int, before: str, after: str, salvaged: Sequence[str]
    ) -> Iterator[tuple[list[str], pa.Table]]:
        """Guess which rows a part held, the likeliest first.

        These are, of the rows that no other part holds, the first or last ones between its neighbours, the
        first or last ones of all, or those that can still be read from its file.

        Parameters
        ----------
        size : int
            How many rows it held.
        before, after : str
            From `find_neighbours`.
        salvaged : sequence of str
            The imgIds that can still be read from its file.

        Yields
        ------
        ids : list of str
            `size` imgIds.
        rows : pyarrow.Table
            Their rows of the listing.
        """
        everywhere = range(len(self._ids))
        between = range(self._row_of.get(before, -1) + 1, self._row_of.get(after, len(self._ids)))
        tried: list[list[int]] = []
        for rows in (*self._ends(between, size), *self._ends(everywhere, size), self._rows_of(salvaged)):
            if len(rows) == size and rows not in tried:
                tried.append(rows)
                yield [self._ids[row] for row in rows], self.table.take(rows)

    def _ends(self, rows: range, size: int) -> tuple[list[int], list[int]]:
        """The first and the last `size` of some rows that no other part holds."""
        first, last = (
            [*islice((row for row in rows[::step] if self._ids[row] not in self._known), size)]
            for step in (1, -1)
        )
        return first, last[::-1]

    def _rows_of(self, names: Sequence[str]) -> list[int]:
        return [self._row_of[name] for name in names if name in self._row_of and name not in self._known]
