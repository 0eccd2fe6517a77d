"""Rows of columns that are read when they are used."""

from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.feature_blocks import select_blocks
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.disk_array import to_disk
from synthetic import ONE, OTHER, make_cache


@pytest.fixture
def cache(tmp_path):
    return Cache(make_cache(tmp_path / "cache", failed=[3], without_prompt=[7, 20]))


def test_a_dataset_that_is_not_held_has_the_values_of_one_that_is(cache):
    columns, target = choose_features(cache, ()), choose_target(cache, None)
    held = load_dataset(cache, columns, target)
    read = load_dataset(cache, columns, target, hold=False)
    assert isinstance(read.X, ColumnRows)
    assert isinstance(read.y, ColumnRows)
    assert read.X.shape == held.X.shape
    assert len(read.y) == len(held.y)
    np.testing.assert_array_equal(np.asarray(read.X), held.X)
    np.testing.assert_array_equal(np.asarray(read.y), held.y)
    assert (read.ids, read.widths) == (held.ids, held.widths)


@pytest.mark.parametrize(
    "index", [slice(5, 40), slice(None, None, 7), np.array([50, 2, 2, 33]), np.arange(57) % 3 == 0]
)
def test_rows_are_selected_as_those_of_an_array(cache, index):
    rows = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None), hold=False).X
    selected = rows[index]
    assert isinstance(selected, ColumnRows)
    np.testing.assert_array_equal(np.asarray(selected), np.asarray(rows)[index])
    np.testing.assert_array_equal(np.asarray(selected[1:]), np.asarray(rows)[index][1:])


def test_columns_are_in_the_order_named(cache):
    rows = np.array([4, 0])
    columns = [cache.mapped(cache.column("features", spec)) for spec in (OTHER, ONE)]
    found = np.asarray(ColumnRows(columns, rows))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, :8], columns[0][rows])
    np.testing.assert_array_equal(found[:, 8:], columns[1][rows])


def test_a_value_that_is_not_finite_is_named_when_it_is_read(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", nan=[11]))
    rows = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None), hold=False).X
    np.asarray(rows[:11])
    with pytest.raises(Img2PromptError, match="NaN or infinity in row 11"):
        np.asarray(rows)


def test_targets_are_held_where_a_row_has_several_prompts(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", further=[row % 3 for row in range(60)]))
    columns, target = choose_features(cache, ()), choose_target(cache, None)
    read = load_dataset(cache, columns, target, hold=False)
    np.testing.assert_array_equal(read.means, load_dataset(cache, columns, target).means)


@pytest.mark.parametrize("ranges", [[(0, 32)], [(8, 32), (0, 8)], [(3, 12), (30, 32), (3, 5)], [(9, 11)]])
def test_values_are_selected_as_blocks_of_an_array(cache, ranges):
    rows = load_dataset(cache, choose_features(cache, ()), choose_target(cache, None), hold=False).X
    selected = select_blocks(rows, ranges)
    assert isinstance(selected, ColumnRows)
    assert selected.shape == (57, sum(stop - start for start, stop in ranges))
    np.testing.assert_array_equal(np.asarray(selected[4:40]), select_blocks(np.asarray(rows), ranges)[4:40])
    np.testing.assert_array_equal(np.asarray(selected.select([(1, 2)]))[:, 0], np.asarray(selected)[:, 1])


def test_rows_of_the_same_columns_follow_each_other(cache):
    columns = choose_features(cache, ())
    with_prompt, without = (
        load_dataset(cache, columns, with_prompt=each, hold=False).X for each in (True, False)
    )
    both = with_prompt.followed_by(without)
    np.testing.assert_array_equal(np.asarray(both), np.concatenate([with_prompt, without]))
    with pytest.raises(ValueError, match="rows of other columns"):
        with_prompt.followed_by(without.select([(0, 8)]))


def test_rows_of_an_array_in_a_file_are_not_held():
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    on_disk = ColumnRows([to_disk([values], 2)], np.array([4, 0]))
    assert not on_disk.held
    assert ColumnRows([values], np.array([4, 0])).held
    np.testing.assert_array_equal(np.asarray(on_disk), values[[4, 0]])
