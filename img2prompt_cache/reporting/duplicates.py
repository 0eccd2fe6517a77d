"""Near-identical rows of a report: groups of prompts that a split keeps together, and of similar images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.data.columns import choose_features
from img2prompt_cache.data.dedup import NONE, find_duplicates
from img2prompt_cache.tables import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.reporting.material import Material
    from img2prompt_cache.reporting.rows import Rows

THRESHOLD = 0.9
"""Cosine of near-identical prompts and images, as `dedup` has it."""

MOST_ROWS = 20_000
"""Rows up to which all are compared with each other; beyond, only equal ones are found."""

GROUPS, MEMBERS = 6, 6
LONGEST = 300


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are alike: how many, and some of them with id and prompt."""

    size: int
    rows: list[int]
    ids: list[str]
    prompts: list[str]


@dataclass(frozen=True, slots=True)
class Alike:
    """Groups of rows that are alike in one respect.

    Attributes
    ----------
    what : str
        ``"prompts"`` or ``"images"``.
    how : str
        What makes two of them alike.
    rows, groups, largest : int
        Rows that are alike to another one, their groups, and the size of the largest.
    shown : list of Group
        The largest.
    """

    what: str
    how: str
    rows: int
    groups: int
    largest: int
    shown: list[Group]


@dataclass(frozen=True, slots=True)
class Duplicated:
    """What is twice: prompts and images, equal or near-identical."""

    prompts: Alike
    images: Alike
    identical_images: int

    @property
    def shown(self) -> list[int]:
        """Rows whose pictures are shown."""
        return [row for alike in (self.prompts, self.images) for group in alike.shown for row in group.rows]


def find_duplicated(material: Material) -> Duplicated:
    """Find rows that are alike.

    Raises
    ------
    Img2PromptError
        If a part is damaged, or a value is not finite.
    """
    rows, cache = material.rows, material.cache
    identical = len(rows.good) - len({rows.digests[row] or f"#{row}" for row in rows.good})
    features = () if cache is None else cache.manifest.of_kind("features")
    if cache is None or not features or len(rows) > MOST_ROWS or not rows.good:
        prompts, images = _equal(rows, rows.prompts), _equal(rows, rows.digests)
        exactly = (
            "are equal"
            if len(rows) <= MOST_ROWS
            else f"are equal; of more than {MOST_ROWS:,} rows, near-identical ones are not searched"
        )
        return Duplicated(
            describe(rows, prompts, "prompts", exactly), describe(rows, images, "images", exactly), identical
        )
    target = material.target if rows.prompted else None
    found = find_duplicates(cache, THRESHOLD, choose_features(cache, (features[0].spec,))[0], target)
    return Duplicated(
        describe(rows, found.prompt_group, "prompts", f"have a cosine of at least {THRESHOLD:g}"),
        describe(
            rows, found.image_group, "images",
            f"have a cosine of at least {THRESHOLD:g} by features of {features[0].spec}",
        ),
        identical,
    )  # fmt: skip


def describe(rows: Rows, group: NDArray[np.int64], what: str, how: str) -> Alike:
    """Describe groups of rows; a group of one row is none."""
    inside = group[group != NONE]
    counts = Counter(inside.tolist())
    largest = [(label, size) for label, size in counts.most_common(GROUPS) if size > 1]
    members = {label: np.flatnonzero(group == label)[:MEMBERS].tolist() for label, _ in largest}
    return Alike(
        what,
        how,
        rows=sum(size for size in counts.values() if size > 1),
        groups=sum(size > 1 for size in counts.values()),
        largest=max(counts.values(), default=0),
        shown=[
            Group(
                size,
                members[label],
                [rows.ids[row] for row in members[label]],
                [shorten(rows.prompts[row], LONGEST) for row in members[label]],
            )
            for label, size in largest
        ],
    )


def _equal(rows: Rows, values: list[str]) -> NDArray[np.int64]:
    """Group the rows whose values are equal; those without a value, or a good image, are in no group."""
    number: dict[str, int] = {}
    good = {*rows.good}
    return np.array(
        [
            number.setdefault(value, len(number)) if value.strip() and row in good else NONE
            for row, value in enumerate(values)
        ],
        np.int64,
    )
