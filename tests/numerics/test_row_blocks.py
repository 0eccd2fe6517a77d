"""Rows in blocks."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.numerics.row_blocks import in_blocks, mean_of_rows


class Lazy:
    """A matrix that is read when it is used, and tells in which thread."""

    def __init__(self, values, threads=None):
        self.values, self.threads = values, set() if threads is None else threads
        self.shape = values.shape

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return Lazy(self.values[index], self.threads)

    def __array__(self, dtype=None, copy=None):
        self.threads.add(threading.get_ident())
        return np.array(self.values, dtype)


@given(st.integers(0, 40), st.integers(1, 12))
def test_blocks_are_the_rows_in_order(n, size):
    values, more = np.arange(2 * n).reshape(n, 2), np.arange(n)
    for arrays in ([values, more], [Lazy(values), more]):
        found = [*in_blocks(arrays, size)]
        assert [row for rows, _ in found for row in range(rows.start, rows.stop)] == [*range(n)]
        for rows, (block, other) in found:
            assert len(block) <= size
            np.testing.assert_array_equal(block, values[rows])
            np.testing.assert_array_equal(other, more[rows])


def test_what_must_be_read_is_read_ahead_in_another_thread():
    rows = Lazy(np.zeros((6, 1)))
    assert len([*in_blocks([rows], 2)]) == 3
    assert rows.threads
    assert threading.get_ident() not in rows.threads


def test_an_error_of_reading_is_that_of_the_caller():
    class Broken(Lazy):
        def __array__(self, dtype=None, copy=None):
            raise OSError("gone")

        def __getitem__(self, index):
            return Broken(self.values[index])

    with pytest.raises(OSError, match="gone"):
        next(in_blocks([Broken(np.zeros((6, 1)))], 2))


def test_the_mean_is_that_of_numpy_and_the_same_bits_where_rows_are_read(monkeypatch):
    values = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    assert mean_of_rows(values)[0] == pytest.approx(values.mean(axis=0, dtype=np.float64), abs=0)
    monkeypatch.setattr(in_blocks, "__defaults__", (16,))
    np.testing.assert_array_equal(mean_of_rows(values), mean_of_rows(Lazy(values)))
    np.testing.assert_allclose(mean_of_rows(values)[0], values.mean(axis=0, dtype=np.float64), rtol=1e-12)
