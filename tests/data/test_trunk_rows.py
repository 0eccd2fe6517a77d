"""Rows of a trunk against plain arrays: selecting reads nothing, reading reads what was selected."""

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
from img2prompt_cache.data.trunk_rows import TrunkRows
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


@given(shots=st.lists(st.integers(0, VIEWS), min_size=7, max_size=7))
def test_each_row_as_one_of_its_views(rows: TrunkRows, shots: list[int]) -> None:
    seen = restore(*quantise(SEEN, 2))
    expected = [seen[row, shot - 1] if shot else TRUNK[row] for row, shot in zip(USED, shots, strict=True)]
    found = rows.seen(np.array(shots))
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
