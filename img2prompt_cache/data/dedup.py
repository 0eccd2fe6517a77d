"""Deduplication: find near-identical prompts and images of a cache, and the rows to keep."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.data.further_prompts import load_further
from img2prompt_cache.data.groups import factorize, join_rows, renumber
from img2prompt_cache.destination import begins_with, require_earlier_output, require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import write_atomically
from img2prompt_cache.numerics.cell_graph import cell_components
from img2prompt_cache.numerics.metrics import TIE, unit
from img2prompt_cache.numerics.similarity_graph import similarity_components
from img2prompt_cache.numerics.standardise import mean_and_scale
from img2prompt_cache.tables import guard_cell

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.further_prompts import FurtherPrompts
    from img2prompt_cache.numerics.similarity_graph import Vectors

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

NAME = "dedup.csv"
HEADER = ["imgId", "keep", "prompt_group", "image_group"]
NONE = -1
EXACT = 100_000
"""Up to so many distinct prompts or images are all compared with each other."""
SAMPLE = 16384
"""Rows from which features are standardised: evenly spaced, if there are more."""


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """Duplicates among the rows of a cache.

    Attributes
    ----------
    ids : list of str, length n
    keep : numpy.ndarray, bool, shape (n,)
        Rows to keep. No two of them share a group, and every other row with a readable image shares a group
        with one that is kept: an earlier one, or one that has a prompt where the row has none.
    prompt_group, image_group : numpy.ndarray, int64, shape (n,)
        Group of each row by prompt and by image, numbered in the order of first rows; −1 if the row has no
        prompt, or no readable image.
    identical : int
        Number of rows whose image has exactly the bytes of an earlier one.
    recall : dict of str to float
        Where there are more than `EXACT` distinct ``"prompts"`` or ``"images"``: the share of the
        near-identical pairs that were found, measured on a sample. Others were all compared.
    """

    ids: list[str]
    keep: NDArray[np.bool_]
    prompt_group: Rows
    image_group: Rows
    identical: int
    recall: dict[str, float] = field(default_factory=dict)


def find_duplicates(cache: Cache, threshold: float, features: Column, target: Column | None) -> Duplicates:
    """Group the usable rows of a cache by near-identical prompts and by near-identical images.

    Groups are connected components: two prompts belong together if the cosine of their targets is at least
    `threshold` or they are equal, and two images likewise by their features or bytes. Features are
    standardised first, as in the nearest head: otherwise what all images have in common would make every two
    of them similar. Values are read in blocks. Of more than `EXACT` distinct ones not all pairs are compared,
    and a group may be in several parts: `Duplicates.recall` says how few pairs are missed.

    Parameters
    ----------
    cache : Cache
    threshold : float
        Smallest cosine of near-identical prompts, or images; above 0, at most 1. Of rows with several
        prompts, any two count.
    features : Column
        Features by which images are compared.
    target : Column or None
        Embeddings by which prompts are compared; None if no row has a prompt.

    Raises
    ------
    UsageError
        If the threshold is out of range, or no row is usable.
    Img2PromptError
        If a part is damaged, or a value is not finite.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"`threshold` must be above 0 and at most 1, not {threshold}", parameter="threshold")
    # The cosine of equal vectors is 1 only up to rounding.
    threshold = min(threshold, 1 - TIE)
    cache.require_undamaged([cache.manifest.columns[0], features, *([target] if target else [])])
    text = cache.text("imgId", "prompt", "sha256", "status")
    missing = cache.missing([features])
    good = [row for row, status in enumerate(text["status"]) if status == OK and row not in missing]
    if not good:
        raise UsageError(f"{cache.folder} has no usable image")
    images = [text["sha256"][row] for row in good]
    prompted = [row for row in good if target and text["prompt"][row].strip()]
    prompt_group = np.full(cache.rows, NONE)
    image_group = np.full(cache.rows, NONE)
    recall: dict[str, float | None] = {}
    image_group[good], recall["images"] = _groups(cache, features, good, images, threshold, standardised=True)
    if target and prompted:
        prompts = [text["prompt"][row] for row in prompted]
        further = load_further(cache, target, np.array(prompted, np.int64))
        prompt_group[prompted], recall["prompts"] = _groups(
            cache, target, prompted, prompts, threshold, standardised=False, further=further
        )
    keep = np.zeros(cache.rows, bool)
    with_prompt = np.array([bool(text["prompt"][row].strip()) for row in good])
    keep[good] = keep_first(prompt_group[good], image_group[good], with_prompt)
    identical = len(images) - len({*images})
    measured = {name: share for name, share in recall.items() if share is not None}
    return Duplicates(text["imgId"], keep, prompt_group, image_group, identical, measured)


def keep_first(one: Rows, other: Rows, preferred: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Mark the rows to keep: each that shares neither of its groups with an earlier row that is kept.

    Parameters
    ----------
    one, other : numpy.ndarray, int64, shape (n,)
        Group of each row, −1 for none.
    preferred : numpy.ndarray, bool, shape (n,), optional
        These rows come before all others: a row without a prompt is of no use to a head, so it does not take
        the place of one with a prompt.

    Returns
    -------
    numpy.ndarray, bool, shape (n,)
    """
    keep = np.zeros(len(one), bool)
    seen: set[tuple[int, int]] = set()
    order = np.arange(len(one)) if preferred is None else np.argsort(~preferred, kind="stable")
    for row, *pair in zip(order.tolist(), one[order].tolist(), other[order].tolist(), strict=True):
        groups = {(kind, group) for kind, group in enumerate(pair) if group != NONE}
        keep[row] = not groups & seen
        if keep[row]:
            seen |= groups
    return keep


def save_duplicates(out: Path, found: Duplicates, *, overwrite: bool = False) -> None:
    """Write a CSV with `imgId`, `keep` (1 or 0), `prompt_group` and `image_group`, empty if there is none.

    Raises
    ------
    UsageError
        If the file exists and `overwrite` is False.
    Img2PromptError
        If it cannot be written.
    """
    check_free(out, overwrite=overwrite)
    groups = [
        ["" if group == NONE else group for group in groups.tolist()]
        for groups in (found.prompt_group, found.image_group)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(zip(map(guard_cell, found.ids), found.keep.astype(int).tolist(), *groups, strict=True))
    try:
        write_atomically(out, text.getvalue().encode())
    except OSError as error:
        raise Img2PromptError(
            f'`out="{out}"` cannot be written: {error.strerror or error}', parameter="out"
        ) from None


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse early, before the work is done, to replace a file without `overwrite`.

    Raises
    ------
    UsageError
        If something exists at that path, or it lies among the files of a cache or run; a ``.csv`` in the
        folder of a cache itself is where it belongs.
    """
    require_free_place(out, "out", own="*.csv")
    if out.is_dir():
        raise UsageError(f'`out="{out}"` is a folder; name a file', parameter="out")
    if os.path.lexists(out) and not overwrite:
        raise UsageError(
            f'`out="{out}"` exists; give `overwrite=True` to replace it, or another name', parameter="out"
        )
    require_earlier_output(out, "out", "dedup", _is_ours)


def _is_ours(path: Path) -> bool:
    return begins_with(path, rb"imgId,keep,prompt_group,image_group\r?\n")


def count_duplicates(group: Rows) -> int:
    """Count the rows that share their group with an earlier row."""
    inside = group[group != NONE]
    return len(inside) - len(np.unique(inside))


def _groups(
    cache: Cache,
    column: Column,
    rows: Sequence[int],
    names: Sequence[Hashable],
    threshold: float,
    *,
    standardised: bool,
    further: FurtherPrompts | None = None,
) -> tuple[Rows, float | None]:
    """Group rows whose names are equal or whose values are similar; each distinct name is compared once.

    Also gives the recall, None where every pair was compared.
    """
    name = factorize(names)
    _, first = np.unique(name, return_index=True)
    vectors = _Vectors(cache, column, np.array(rows, np.int64)[first], standardised=standardised)
    if further is None:
        component, recall = _components(vectors, threshold)
        return renumber(component[name]), recall
    component, recall = _components(_Joined(vectors, unit(further.vectors)), threshold)
    return renumber(join_rows(component, name, further.row)), recall


class _Joined:
    """Vectors, and others below them."""

    def __init__(self, vectors: Vectors, others: F32) -> None:
        self._vectors, self._others = vectors, others

    def __len__(self) -> int:
        return len(self._vectors) + len(self._others)

    def __getitem__(self, part: slice | Rows) -> F32:
        rows = np.arange(*part.indices(len(self))) if isinstance(part, slice) else part
        first, found = len(self._vectors), np.empty((len(rows), self._others.shape[1]), np.float32)
        others = rows >= first
        found[others] = self._others[rows[others] - first]
        found[~others] = self._vectors[rows[~others]]
        return found


def _components(vectors: Vectors, threshold: float) -> tuple[Rows, float | None]:
    if len(vectors) <= EXACT:
        return similarity_components(vectors, threshold), None
    component, recall = cell_components(vectors, threshold)
    return renumber(component), recall


class _Vectors:
    """Rows of a column as unit vectors, read when they are indexed."""

    def __init__(self, cache: Cache, column: Column, rows: Rows, *, standardised: bool) -> None:
        self._values, self._rows, self._folder = cache.mapped(column), rows, column.folder
        self._mean, self._scale = np.zeros(1, np.float32), np.ones(1, np.float32)
        if standardised:
            self._mean, self._scale = mean_and_scale(self._finite(rows[:: -(-len(rows) // SAMPLE)]))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice | Rows) -> F32:
        return unit((self._finite(self._rows[part]) - self._mean) / self._scale)

    def _finite(self, rows: Rows) -> F32:
        values: F32 = self._values.read(rows)
        if not np.isfinite(np.sum(values, dtype=np.float64)):
            raise Img2PromptError(
                f"{self._folder} holds NaN or infinity in usable rows; `verify()` tells whether a part was "
                "changed"
            )
        return values
