"""The rows that a run was made of: on which side of its split each was, and what it held."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.texts import BLOCK, Texts
from img2prompt_cache.data.splits import PURGED, Split
from img2prompt_cache.errors import Img2PromptError, check
from img2prompt_cache.numerics.disk_array import release, to_disk
from img2prompt_cache.tables import bare_cell, guard_cell

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = "rows.csv"
SIDES = {-1: "train", PURGED: "purged"}
"""How `rows.csv` names what is no fold; a row that was held out has the number of its fold."""
DIGITS = 16
BYTES = 2**20
"""Of `rows.csv`, copied at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class UsedRows:
    """The rows of a run.

    Attributes
    ----------
    ids : Texts, length n
    fold : numpy.ndarray, int64, shape (n,)
        As in `Split`: the fold that held the row out, -1 for a row that was fitted on, `PURGED` for one
        that was left out.
    contents : Texts, length n
        From `row_digest`.
    purges : tuple of numpy.ndarray, int64
        As in `Split`: where folds left out rows, for each fold the places of those that it did.
    """

    ids: Texts
    fold: NDArray[np.int64]
    contents: Texts
    purges: tuple[NDArray[np.int64], ...] = ()


def row_digest(prompt: str, image: str) -> str:
    """Hash the prompt and the digest of the image of a row, to find out later whether it has changed."""
    return hashlib.sha256(json.dumps([prompt, image]).encode()).hexdigest()[:DIGITS]


def describe_used_rows(
    split: Split, ids: Sequence[str], prompts: Sequence[str], images: Sequence[str]
) -> NDArray[np.uint8]:
    """Give the bytes of `rows.csv`: imgId, side and contents of each row; and which folds left it out.

    Parameters
    ----------
    split : Split
        Of n rows.
    ids, prompts, images : sequence of str, length n
        As for `Split.digest`.

    Returns
    -------
    numpy.ndarray, uint8, shape (m, 1)
        Kept in a temporary file, because a run is written long after its rows are known.

    Raises
    ------
    Img2PromptError
        If the disk has too little room.
    """
    left_out = np.zeros((len(split.fold), len(split.purges)), bool)
    for number, purged in enumerate(split.purges):
        left_out[purged, number] = True
    more = [(" ".join(map(str, np.flatnonzero(each))) for each in left_out)] if split.purges else []
    sides = (SIDES.get(number, str(number)) for number in map(int, split.fold))
    contents = map(row_digest, prompts, images)
    lines = zip(map(guard_cell, ids), sides, contents, *more, strict=True)
    return to_disk(_encoded([["imgId", "side", "contents", *["purged"][: len(more)]]], lines), 1, np.uint8)


def _encoded(*tables: Iterable[Sequence[str]]) -> Iterator[NDArray[np.uint8]]:
    """Encode lines as CSV, some at a time."""
    lines = chain(*tables)
    while some := list(islice(lines, BLOCK)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(some)
        yield np.frombuffer(text.getvalue().encode(), np.uint8)


def save_used_rows(folder: Path, described: NDArray[np.uint8]) -> None:
    """Write `rows.csv`, from `describe_used_rows`."""
    with (folder / ROWS).open("wb") as file:
        for start in range(0, len(described), BYTES):
            file.write(described[start : start + BYTES].data)
            release(described)


def load_used_rows(folder: Path) -> UsedRows | None:
    """Read the rows of a run; None for one of a version that did not record them.

    Raises
    ------
    Img2PromptError
        If the file is damaged.
    """
    numbers = {name: number for number, name in SIDES.items()}
    try:
        with (folder / ROWS).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = UsedRows(
            Texts.of(bare_cell(row["imgId"]) for row in rows),
            np.array([numbers.get(row["side"]) or int(row["side"]) for row in rows], np.int64),
            Texts.of(row["contents"] for row in rows),
        )
        if rows and "purged" in rows[0]:
            found = replace(found, purges=_purges([row["purged"] for row in rows], int(found.fold.max()) + 1))
        check(len({*found.ids}) == len(found.ids) > 0, "an imgId stands twice, or there is none")
        check(bool((found.fold >= PURGED).all()), "a fold is below 0")
        check(all(isinstance(each, str) and len(each) == DIGITS for each in found.contents), "a hash is cut")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise Img2PromptError(f"{folder / ROWS} cannot be read: {error}; fit the run again") from None
    return found


def _purges(cells: list[str], folds: int) -> tuple[NDArray[np.int64], ...]:
    """Read for each fold which rows it left out.

    Raises
    ------
    ValueError
        If there is no such fold.
    """
    check(folds <= len(cells), f"{folds} folds of {len(cells)} rows")
    found: list[list[int]] = [[] for _ in range(folds)]
    for row, cell in enumerate(cells):
        for number in map(int, cell.split()):
            check(0 <= number < folds, f"row {row} names a fold {number} of {folds}")
            found[number].append(row)
    return tuple(np.array(each, np.int64) for each in found)
