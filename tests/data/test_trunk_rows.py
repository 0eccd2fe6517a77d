"""Rows of a trunk, and batches of them, against plain arrays: selecting reads nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from columns import write
from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.mapped import MappedColumn, MappedViews
from img2prompt_cache.cache.quantise import quantise, restore
from img2prompt_cache.data.trunk_rows import TrunkRows, batches
from img2prompt_cache.errors import Img2PromptError

ROWS, VIEWS = 23, 3
RNG = np.random.default_rng(0)
TRUNK = RNG.normal(size=(ROWS, 4, 5)).astype(np.float16)
SEEN = RNG.normal(size=(ROWS, VIEWS, 4, 5)).astype(np.float16)
USED = np.array([3, 0, 22, 9, 10, 11, 15])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Column, Column]:
    folder = tmp_path_factory.mktemp("rows")
    return folder, write(folder, "trunk", "t", TRUNK), write(folder, "views", "v", SEEN, "int8")


@pytest.fixture(scope="module")
def rows(stored: tuple[Path, Column, Column]) -> TrunkRows:
    folder, trunk, views = stored
    return TrunkRows(MappedColumn(folder, trunk), USED, MappedViews(folder, views))


def test_it_looks_like_an_array(rows: TrunkRows) -> None:
    assert (len(rows), rows.shape, rows.views) == (7, (7, 4, 5), VIEWS)
    assert np.asarray(rows).dtype == np.float32
    np.testing.assert_array_equal(np.asarray(rows), TRUNK[USED].astype(np.float32))
    np.testing.assert_array_equal(np.asarray(rows, np.float64), TRUNK[USED].astype(np.float64))
    assert np.asarray(rows[:0]).shape == (0, 4, 5)


@given(first=st.lists(st.integers(0, 6), max_size=9), start=st.integers(0, 9), size=st.integers(0, 9))
def test_selections_of_selections(rows: TrunkRows, first: list[int], start: int, size: int) -> None:
    index = np.array(first, np.int64)
    some = rows[index][start : start + size]
    np.testing.assert_array_equal(np.asarray(some), TRUNK[USED[index][start : start + size]])
    mask = np.arange(7) % 2 == 0
    np.testing.assert_array_equal(np.asarray(rows[mask]), TRUNK[USED[mask]])


@given(views=st.lists(st.integers(0, VIEWS), min_size=7, max_size=7))
def test_each_row_as_one_of_its_views(rows: TrunkRows, views: list[int]) -> None:
    stored = restore(*quantise(SEEN, 2))
    expected = [stored[row, view - 1] if view else TRUNK[row] for row, view in zip(USED, views, strict=True)]
    found = rows.with_views(np.array(views))
    np.testing.assert_array_equal(np.asarray(found), np.array(expected, np.float32))
    np.testing.assert_array_equal(np.asarray(found[::-1]), np.array(expected[::-1], np.float32))


def test_selecting_reads_nothing_and_reading_only_what_was_selected(
    stored: tuple[Path, Column, Column],
) -> None:
    asked: list[int] = []

    class Counting(MappedColumn):
        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            asked.extend(rows.tolist())
            return super().__getitem__(rows)

    rows = TrunkRows(Counting(stored[0], stored[1]), np.arange(ROWS))
    some = rows[np.arange(20)][5:8]
    assert rows.views == 0
    assert asked == []
    np.asarray(some)
    assert asked == [5, 6, 7]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_located(tmp_path: Path, bad: float) -> None:
    values = TRUNK.copy()
    values[9, 1, 2] = bad
    rows = TrunkRows(MappedColumn(tmp_path, write(tmp_path, "trunk", "t", values)), USED)
    np.asarray(rows[:3])
    with pytest.raises(Img2PromptError, match=r"trunk/t or its views hold NaN or infinity in row 9;.*verify"):
        np.asarray(rows)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_batches_cover_every_row_once(rows: TrunkRows, size: int) -> None:
    numbers = np.array([6, 5, 2, 1, 0])
    values = np.asarray(rows)
    pair = [rows, values]
    in_order = list(batches(pair, numbers, size))
    assert [len(batch) for batch, _ in in_order[:-1]] == [size] * (len(in_order) - 1)
    for column in range(2):
        np.testing.assert_array_equal(np.concatenate([b[column] for b in in_order]), values[numbers])
    shuffled = [np.concatenate([b[0] for b in batches(pair, numbers, size, seed)]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(shuffled[0], shuffled[1])
    assert (shuffled[0] != shuffled[2]).any()
    np.testing.assert_array_equal(np.sort(shuffled[0], axis=0), np.sort(values[numbers], axis=0))


def test_no_rows_give_no_batches(rows: TrunkRows) -> None:
    assert list(batches([rows], np.empty(0, np.int64), 4, seed=0)) == []


def test_batches_can_be_stopped_early(rows: TrunkRows) -> None:
    going = batches([rows], np.arange(7), 2)
    next(going)
    going.close()
