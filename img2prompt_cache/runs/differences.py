"""Paired differences of entries of a leaderboard, with intervals and p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.bootstrap import holm, p_value, paired_difference
from img2prompt_cache.runs.entries import Entry, HeldRows
from img2prompt_cache.runs.record import same_split


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher a mean cosine is than another on the same rows, with its 95 % interval and p.

    The interval also covers heads fitted on other training rows; see `bootstrap.split_widening`. `p` is that
    of no difference, two-sided, adjusted for the number of entries in the table by Holm's procedure. Both are
    None where all rows are one group.
    """

    cosine: float
    ci95: tuple[float, float] | None
    p: float | None = None


def differences(entries: Sequence[Entry], reference: Entry) -> list[Difference | None]:
    """Compare every entry with one of them, row by row.

    Of several runs on a split, the mean over them is compared; of several splits, each with the same split of
    the other. Rows that several splits held out count as often, and are one group in the bootstrap.

    Parameters
    ----------
    entries : sequence of Entry
        Each `comparable` with `reference`.
    reference : Entry

    Returns
    -------
    list of Difference or None
        In the order of `entries`; None for the reference itself.

    Raises
    ------
    Img2PromptError
        If the validation predictions of a run are damaged, or are not of the rows of the other.
    """
    factor = reference.widening
    found: list[tuple[float, tuple[float, float] | None] | None] = []
    p: list[float | None] = []
    base = np.concatenate([held.cosine for held in reference.held])
    for entry in entries:
        if entry.runs[0].folder.resolve() == reference.runs[0].folder.resolve():
            found.append(None)
            p.append(None)
            continue
        cosines = np.concatenate([_paired(entry, held) for held in reference.held])
        found.append(paired_difference(cosines, base, reference.groups, widening=factor))
        p.append(p_value(cosines - base, reference.groups, factor))
    return [each and Difference(*each, adjusted) for each, adjusted in zip(found, holm(p), strict=True)]


def _paired(entry: Entry, wanted: HeldRows) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Give the cosines of an entry on the rows of a split, in the order that these have in another."""
    held = next(each for each in entry.held if same_split(each.split, wanted.split))
    place = {name: row for row, name in enumerate(held.ids)}
    if place.keys() != {*wanted.ids}:
        raise Img2PromptError(
            f"the validation predictions of {entry.run.folder} are of other rows than its split held out; "
            "fit it again"
        )
    return held.cosine[[place[name] for name in wanted.ids]]
