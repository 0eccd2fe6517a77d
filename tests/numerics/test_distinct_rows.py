"""Distinct rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.numerics import row_blocks
from img2prompt_cache.numerics.disk_array import to_disk
from img2prompt_cache.numerics.distinct_rows import first_rows


@given(seed=st.integers(0, 99), n=st.integers(0, 60), p=st.integers(1, 3))
def test_the_first_of_equal_rows_is_found_as_sorting_them_finds_it(seed, n, p):
    values = np.random.default_rng(seed).integers(-1, 2, (n, p)).astype(np.float32)
    values *= np.random.default_rng(seed).choice([-1, 1], (n, p))  # some zeros are -0.0
    expected = np.sort(np.unique(values + 0, axis=0, return_index=True)[1])
    np.testing.assert_array_equal(first_rows(values), expected)
    np.testing.assert_array_equal(first_rows(np.asfortranarray(values)), expected)


def test_rows_that_are_read_are_compared_across_blocks(monkeypatch):
    monkeypatch.setattr(row_blocks.in_blocks, "__defaults__", (7,))
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)[np.arange(100) % 20]
    read = ColumnRows([to_disk([values], 3)], np.arange(100))
    np.testing.assert_array_equal(first_rows(read), np.arange(20))
