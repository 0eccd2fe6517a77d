"""Splits of rows into training and validation, which keep groups of near-identical rows on one side."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.texts import BLOCK, Texts, sort_rows
from img2prompt_cache.data.groups import renumber
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]


PURGED = -2
"""The fold of rows that are neither fitted on nor held out: they are near-identical to a held-out row."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A split of rows into folds: each fold is held out once, and a head is fitted on all other rows.

    Attributes
    ----------
    strategy : str
        ``"group"``, ``"random"``, the name of the column it came from, or ``column=value`` for a test set.
    seed : int
        Seed of the shuffle.
    fold : numpy.ndarray, int64, shape (n,)
        Fold of each row, 0…k−1, or −1 for rows that are never held out, or `PURGED`. A hold-out is a single
        fold.
    groups : numpy.ndarray, int64, shape (n,)
        Group of each row. Inner splits of the training rows keep groups together, too.
    grouped_by : tuple of (str, float), or None
        The encoder and the smallest cosine by which prompts were grouped, where they were.
    clustered : bool
        Whether groups are clusters of similar prompts, as in a split of many rows. Then rows of two groups
        can be near-identical.
    purging : bool
        Whether rows are left out that are near-identical to a held-out row, if there are any.
    purges : tuple of numpy.ndarray, int64
        Where folds leave out rows because they are near-identical to a held-out row: for each fold those that
        it does, ascending, none of them in the fold. Empty otherwise; a hold-out has them in `fold`.
    """

    strategy: str
    seed: int
    fold: Rows
    groups: Rows
    grouped_by: tuple[str, float] | None = None
    clustered: bool = False
    purging: bool = False
    purges: tuple[Rows, ...] = ()

    @property
    def folds(self) -> int:
        """Number of folds: 1 for a hold-out."""
        return int(self.fold.max()) + 1

    @property
    def train(self) -> Rows:
        """Indices of the rows that are fitted on and never held out, ascending."""
        return np.flatnonzero(self.fold == -1)

    @property
    def purged(self) -> Rows:
        """Indices of the rows that are left out because they are near-identical to a held-out row.

        By folds, of those that one fold at least leaves out.
        """
        return np.unique(np.concatenate([np.flatnonzero(self.fold == PURGED), *self.purges]))

    @property
    def test_set(self) -> bool:
        """Whether the held-out rows are a test set that was named by a value of a column."""
        return is_test_set(self.strategy)

    @property
    def validation(self) -> Rows:
        """Indices of the rows that are held out, ascending: all that are neither in `train` nor `purged`."""
        return np.flatnonzero(self.fold >= 0)

    @property
    def sides(self) -> Iterator[tuple[Rows, Rows]]:
        """For each fold, the indices of the training rows and of the held-out rows, ascending."""
        for number in range(self.folds):
            held = self.fold == number
            train = ~held & (self.fold != PURGED)
            if self.purges:
                train[self.purges[number]] = False
            yield np.flatnonzero(train), np.flatnonzero(held)

    @property
    def straddling(self) -> int:
        """Number of groups that straddle the split, that is, have rows in more than one fold.

        It is 0 unless the split is random, or a column of the user's names the sides. Of a random split of
        many rows, groups are clusters, so that this says nothing of near-identical rows.
        """
        kept = self.fold != PURGED
        groups, fold = renumber(self.groups[kept]), self.fold[kept]
        one = np.empty(groups.max(initial=-1) + 1, np.int64)
        one[groups] = fold  # the fold of some row of each group
        return len(np.unique(groups[fold != one[groups]]))

    @property
    def largest_group(self) -> int:
        """Number of rows in the largest group."""
        return int(np.bincount(renumber(self.groups)).max())

    def inner_groups(self, rows: Rows) -> Rows:
        """Return the groups for inner splits of some rows, on which settings are chosen.

        Parameters
        ----------
        rows : numpy.ndarray, int64, shape (m,)
            Indices of rows.

        Returns
        -------
        numpy.ndarray, int64, shape (m,)
            The groups of the rows. In a random split each row is its own group: such a split measures the
            effect of leakage, so settings are chosen with the same leakage.
        """
        return np.arange(len(rows)) if self.strategy == "random" else self.groups[rows]

    def digest(self, ids: Sequence[str], prompts: Sequence[str], images: Sequence[str]) -> str:
        """Hash which rows were held out, fold by fold.

        Prompts and images are hashed as well as ids, because different data sets have the same ids 0001,
        0002, …. Of the rows that are never held out only the ids are hashed, and nothing of the targets; see
        `contents_digest`. It stays as it is, because runs of every version record it.

        Parameters
        ----------
        ids, prompts, images : sequence of str, length n
            The imgId, the prompt and the digest of the image of each row.

        Returns
        -------
        str
            64 hex digits, independent of the order of rows and of folds.
        """
        columns = [Texts.of(each) for each in (ids, prompts, images)]
        folds = sorted(_described(rows, columns) for _, rows in self.sides)
        train = columns[0].take(self._sorted_train(columns[:1]))
        return _hash(
            self.strategy, folds[0] if len(folds) == 1 else folds, train, *self._left_out(columns[0])
        )

    def contents_digest(
        self, ids: Sequence[str], prompts: Sequence[str], images: Sequence[str], target: Mapping[str, str]
    ) -> str:
        """Hash what all rows are, on which side each is, and what is predicted.

        Parameters
        ----------
        ids, prompts, images
            As for `digest`.
        target : mapping of str to str
            Fingerprint of the target column: with the prompts it says what the targets are. Their values are
            not hashed, because recomputing them on another machine changes their last bits.

        Returns
        -------
        str
            64 hex digits, independent of the order of rows and of folds.
        """
        columns = [Texts.of(each) for each in (ids, prompts, images)]
        folds = sorted(_described(rows, columns) for _, rows in self.sides)
        rows = self._sorted_train(columns)
        train = zip(*(column.take(rows) for column in columns), strict=True)
        return _hash(self.strategy, folds, train, sorted(target.items()), *self._left_out(columns[0]))

    def _sorted_train(self, columns: Sequence[Texts]) -> Rows:
        """Sort the rows that are never held out by their texts."""
        rows = sort_rows(columns)
        train: Rows = rows[self.fold[rows] == -1]
        return train

    def _left_out(self, ids: Texts) -> list[list[list[str]]]:
        """Describe what each fold leaves out; nothing where none does, as in earlier versions."""
        if not self.purges:
            return []
        pairs = zip(self.sides, self.purges, strict=True)
        described = [(min(ids.take(held)), purged) for (_, held), purged in pairs]
        return [[sorted(ids.take(purged)) for _, purged in sorted(described, key=lambda p: p[0])]]


def is_test_set(strategy: str) -> bool:
    """Whether a split holds out a test set, ``column=value``."""
    return "=" in strategy


def rows_digest(rows: Rows, ids: Sequence[str], prompts: Sequence[str], images: Sequence[str]) -> str:
    """Hash the contents of some rows, in any order, to 64 hex digits; arguments as for `Split.digest`."""
    return _hash(*_described(rows, [Texts.of(each) for each in (ids, prompts, images)]))


def _described(rows: Rows, columns: Sequence[Texts]) -> list[tuple[str, ...]]:
    return sorted(zip(*(column.take(rows) for column in columns), strict=True))


def _hash(*values: object) -> str:
    """Hash the JSON of a list; of values that are iterators, lists that need not be in memory as a whole."""
    digest = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        pieces = _json_of_list(value) if isinstance(value, Iterator) else [json.dumps(value)]
        for piece in chain([", "] if number else [], pieces):
            digest.update(piece.encode())
    digest.update(b"]")
    return digest.hexdigest()


def _json_of_list(values: Iterator[object]) -> Iterator[str]:
    yield "["
    for number, some in enumerate(iter(lambda: list(islice(values, BLOCK)), [])):
        yield (", " if number else "") + json.dumps(some)[1:-1]
    yield "]"


def hold_out(groups: Rows, fraction: float = 0.2, seed: int = 0, strategy: str = "group") -> Split:
    """Hold out whole groups for validation: a random one, or several, of equal folds of the rows.

    For a fifth of the rows it is one of 5 folds, for three tenths 3 of 10. So a large group is held out as
    often as any other row, which shuffling groups and taking those that fit does not do: it never takes a
    group that is larger than the fraction. Where groups are large the share held out differs from `fraction`
    by up to the share of the largest group. The split depends on which rows share a group, not on the numbers
    of the groups.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (n,)
    fraction : float
        Share of rows to hold out, above 0 and below 1.
    seed : int
        Seed of the shuffle.
    strategy : str
        Name to record with the split.

    Raises
    ------
    UsageError
        If there are fewer than two groups, or `fraction` is out of range.
    """
    count = require_two_groups(groups, fraction, strategy)
    groups = renumber(groups)
    held, folds = _share(fraction, count)
    fold = k_folds(groups, folds, seed)
    drawn = np.random.default_rng([seed, folds]).permutation(folds)[:held]
    return Split(strategy, seed, np.where(np.isin(fold, drawn), 0, -1), groups)


def require_two_groups(groups: Rows, fraction: float, strategy: str) -> int:
    """Check that groups can be divided, and count them; parameters and errors as for `hold_out`."""
    if not 0 < fraction < 1:
        raise UsageError(f"`holdout` must lie between 0 and 1, not {fraction}", parameter="holdout")
    count = len(np.unique(groups))
    if len(groups) < 2:
        raise UsageError(f"cannot hold out rows of {len(groups)}; add pairs")
    if count < 2:
        instead = (
            "; `test=COLUMN=VALUE` holds out one label, and leaves out what is near-identical to it"
            if strategy != "group"
            else ""
        )
        raise UsageError(
            f"cannot hold out rows: all {len(groups)} are one group of {_LIKE[strategy == 'group']}; "
            f'add pairs, or use `split="random"` and expect a score that is too high{instead}',
            parameter="split",
        )
    return count


FINEST = 20
"""A hold-out is some of this many folds at most, unless the fraction is smaller than one of them."""


def _share(fraction: float, groups: int) -> tuple[int, int]:
    """Find how many of how many folds come nearest to a fraction of the rows: at least one, never all."""
    finest = max(FINEST, math.ceil(1 / min(fraction, 1 - fraction)))
    nearest = Fraction(fraction).limit_denominator(min(finest, groups))
    held, folds = nearest.numerator, nearest.denominator
    if 0 < held < folds:
        return held, folds
    return (groups - 1 if held else 1), groups


_LIKE = ("equal labels or near-identical prompts or images", "near-identical prompts or images")


def random_split(n: int, fraction: float = 0.2, seed: int = 0, folds: int | None = None) -> Split:
    """Split single rows at random; near-identical prompts can be on both sides, so scores are too high."""
    return split_groups(np.arange(n), "random", fraction, folds, seed)


def k_fold_split(groups: Rows, folds: int, seed: int = 0, strategy: str = "group") -> Split:
    """Split rows into folds of whole groups, each held out once; see `k_folds`.

    Raises
    ------
    UsageError
        If there are fewer than two folds, or fewer groups than folds.
    """
    count = len(np.unique(groups))
    if folds < 2:
        raise UsageError(
            f"`folds={folds}`: at least 2 are needed; leave it out for a single hold-out", parameter="folds"
        )
    if count < folds:
        like = "" if strategy == "random" else f" of {_LIKE[strategy == 'group']}"
        what = f"{'row' if strategy == 'random' else 'group'}{'s' * (count != 1)}{like}"
        raise UsageError(
            f"`folds={folds}`: there {'is' if count == 1 else 'are'} only {count} {what}; ask for fewer "
            "folds, or add pairs",
            parameter="folds",
        )
    return Split(strategy, seed, k_folds(groups, folds, seed), groups)


def split_groups(groups: Rows, strategy: str, fraction: float, folds: int | None, seed: int) -> Split:
    """Split whole groups: a hold-out of a fraction of the rows; or folds, if `folds` is given."""
    if folds is None:
        return hold_out(groups, fraction, seed, strategy)
    return k_fold_split(groups, folds, seed, strategy)


def k_folds(groups: Rows, k: int, seed: int = 0) -> Rows:
    """Assign whole groups to k folds of about equal size.

    Groups are shuffled, then assigned from the largest to the smallest, each to the smallest fold so far.

    Parameters
    ----------
    groups : numpy.ndarray, int64, shape (n,)
    k : int
        Number of folds, at least 2.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    numpy.ndarray, int64, shape (n,)
        Fold of each row, 0…k−1; no fold is empty.

    Raises
    ------
    UsageError
        If k < 2 or there are fewer groups than folds.
    """
    groups = renumber(groups)
    size = np.bincount(groups)
    if k < 2:
        raise UsageError(f"cannot cross-validate with {k} folds; at least 2 are needed")
    if len(size) < k:
        what = "row" if len(size) == len(groups) else "group"
        many = f"{what}{'s' if len(size) > 1 else ''}"
        like = " of near-identical prompts or images" if what == "group" else ""
        fewer = (
            "ask for fewer folds (`folds`, `inner_folds`)"
            if len(size) > 1
            else "give the settings that they would choose, such as `alpha`"
        )
        raise UsageError(f"{len(size)} {many}{like} cannot fill {k} folds; add pairs, or {fewer}")
    shuffled = np.random.default_rng(seed).permutation(len(size))
    fold = np.empty(len(size), np.int64)
    heap = [(0, number) for number in range(k)]
    for group in shuffled[np.argsort(-size[shuffled], kind="stable")].tolist():
        rows, number = heap[0]
        fold[group] = number
        heapq.heapreplace(heap, (rows + int(size[group]), number))
    return fold[groups]
