"""Parts written from the values of other parts: some rows replaced, or several parts joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from img2prompt_cache.cache.identity import identity_of
from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.part_text import read_text
from img2prompt_cache.cache.parts import PartFile, Values, map_values

_BLOCK_BYTES = 1 << 24

Patch: TypeAlias = tuple[Path, Sequence[int]]
"""A part of the same rows, and which rows within the part are taken from it."""


def patch_part(
    column: Column,
    texts: Sequence[str],
    old: Path,
    patches: Sequence[Patch],
    new: Path,
    *,
    rows: tuple[int, int],
    schema: int,
) -> tuple[int, str]:
    """Write a part that is `old` but for some rows, bit for bit.

    Parameters
    ----------
    column : Column
        Whose part it is.
    texts : sequence of str
        Datasets of text that it has: those of `rows`, none in other columns.
    old : pathlib.Path
        A whole part, or one just computed.
    patches : sequence of (pathlib.Path, sequence of int)
        What takes the place of what.
    new : pathlib.Path
        The file to write. Its bytes depend on the values alone, not on how many patches they came in.
    rows : tuple of int
        First row of the part, and the one after its last.
    schema : int
        Of the new part.

    Returns
    -------
    size : int
    sha256 : str
        As `PartFile.commit` gives them.

    Raises
    ------
    Img2PromptError
        If one of the files is no such part.
    """
    count = rows[1] - rows[0]

    def text(name: str) -> list[str]:
        values = [*read_text(old, [name], count)[name]]
        for path, taken in patches:
            other = read_text(path, [name], count)[name]
            for row in taken:
                values[row] = other[row]
        return values

    def numbers(name: str) -> Callable[[int, int], Values]:
        shape, dtype = column.datasets[name]
        base = map_values(old, name, (count, *shape), dtype)
        others = [(map_values(path, name, (count, *shape), dtype), taken) for path, taken in patches]

        def read(start: int, stop: int) -> Values:
            values = np.array(base[start:stop])
            for other, taken in others:
                for row in taken:
                    if start <= row < stop:
                        values[row - start] = other[row]
            return values

        return read

    return _write(column, texts, new, rows, schema, text, numbers)


def join_parts(
    column: Column,
    texts: Sequence[str],
    pieces: Sequence[tuple[Path, int, int]],
    new: Path,
    *,
    schema: int,
) -> tuple[int, str]:
    """Write a part that holds the rows of several, which follow each other, bit for bit.

    Parameters
    ----------
    column, texts, new, schema
        As for `patch_part`.
    pieces : sequence of (pathlib.Path, int, int)
        The parts, each with its first row and the one after its last.

    Returns
    -------
    size, sha256
        As of `patch_part`; the bytes depend on the values alone.
    """
    first, last = pieces[0][1], pieces[-1][2]
    whole: dict[str, list[str]] = {name: [] for name in texts}
    for path, start, stop in pieces if texts else ():
        for name, values in read_text(path, list(texts), stop - start).items():
            whole[name] += values

    def numbers(name: str) -> Callable[[int, int], Values]:
        shape, dtype = column.datasets[name]

        def read(start: int, stop: int) -> Values:
            found = []
            for path, low, high in pieces:
                a, b = max(low, first + start), min(high, first + stop)
                if a < b:
                    found.append(map_values(path, name, (high - low, *shape), dtype)[a - low : b - low])
            return np.concatenate(found)

        return read

    return _write(column, texts, new, (first, last), schema, whole.__getitem__, numbers)


def _write(
    column: Column,
    texts: Sequence[str],
    new: Path,
    rows: tuple[int, int],
    schema: int,
    text: Callable[[str], list[str]],
    numbers: Callable[[str], Callable[[int, int], Values]],
) -> tuple[int, str]:
    count = rows[1] - rows[0]
    with PartFile(new, identity_of(column, *rows, schema)) as out:
        for name in sorted([*texts, *column.datasets]):
            if name in texts:
                out.write_text(name, text(name))
                continue
            shape, dtype = column.datasets[name]
            out.create(name, (count, *shape), dtype)
            read = numbers(name)
            step = max(1, _BLOCK_BYTES // max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
            for start in range(0, count, step):
                out.write(name, start, read(start, min(start + step, count)))
        return out.commit()
