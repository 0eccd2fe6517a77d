from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics import disk_array
from img2prompt_cache.numerics.disk_array import map_array, release, take_rows, to_disk


def test_rows_come_back_and_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    values = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)
    made = to_disk((values[start : start + 7] for start in range(0, 23, 7)), 5)
    np.testing.assert_array_equal(made, values)
    np.testing.assert_array_equal(made[[4, 0, 22]], values[[4, 0, 22]])
    with pytest.raises(ValueError, match="read-only"):
        made[0] = 0
    assert type(made) is np.ndarray
    assert list(tmp_path.iterdir()) == []
    del made
    gc.collect()


def test_a_full_disk_is_told_with_what_to_do():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
        with pytest.raises(Img2PromptError, match=r"No space left on device; make room, or .* TMPDIR"):
            to_disk([np.ones((1 << 12, 8), np.float32)], 8)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("mode", ["r", "c"])
def test_rows_of_a_mapped_file_are_those_of_the_array(dtype, mode, tmp_path):
    values = np.random.default_rng(0).random((3000, 33)).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(b"head of 9" + values.tobytes() + b"tail")
    with path.open("rb") as file:
        mapped = map_array(file, dtype, values.shape, 9, mode)
    path.unlink()
    rows = np.random.default_rng(1).integers(0, 3000, 200)
    np.testing.assert_array_equal(mapped, values)
    np.testing.assert_array_equal(take_rows(mapped, rows), values[rows])
    np.testing.assert_array_equal(take_rows(mapped[1000:], rows % 2000), values[1000:][rows % 2000])
    np.testing.assert_array_equal(take_rows(values, rows), values[rows])
    release(mapped)
    np.testing.assert_array_equal(take_rows(mapped, np.array([-1, 7]))[1], values[7])
    np.testing.assert_array_equal(mapped, values)


def test_rows_on_disk_are_those_that_were_written():
    values = np.random.default_rng(0).random((50, 7)).astype(np.float16)
    stored = to_disk([values[:20], values[20:]], 7, np.float16)
    np.testing.assert_array_equal(stored, values)
    np.testing.assert_array_equal(take_rows(stored, np.arange(50)[::-1]), values[::-1])
    np.testing.assert_array_equal(take_rows(stored[:, 1:], np.array([3, 4])), values[3:5, 1:])


def test_the_file_of_a_map_is_closed_with_it():
    before = len(disk_array._FILES)
    stored = to_disk([np.ones((5, 2), np.float32)], 2)
    (number,) = [each for key, (each, _) in disk_array._FILES.items() if key is disk_array._map_of(stored)]
    assert os.fstat(number).st_size == 40
    del stored
    assert len(disk_array._FILES) == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_file_that_was_cut_is_told(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(np.ones((2000, 8)).tobytes())
    with path.open("rb") as file:
        mapped = map_array(file, np.float64, (2000, 8))
    os.truncate(path, 4096)
    with pytest.raises(Img2PromptError, match="was cut while its rows were read"):
        take_rows(mapped, np.array([0, 1999]))


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="this system reads through the map")
@pytest.mark.parametrize(("most", "calls"), [(2**30, 4), (28 * 10, 7)])
def test_rows_that_follow_each_other_are_read_in_one_go(most, calls, monkeypatch):
    values = np.random.default_rng(0).random((100, 7)).astype(np.float32)
    stored = to_disk([values], 7)
    read, seen = os.preadv, []
    monkeypatch.setattr(disk_array, "MOST_READ", most)
    monkeypatch.setattr(os, "preadv", lambda *args: seen.append(args) or read(*args))
    rows = np.array([*range(20, 60), 7, *range(3), *range(1, 4)])
    np.testing.assert_array_equal(take_rows(stored, rows), values[rows])
    assert len(seen) == calls
    assert take_rows(stored, rows[:0]).shape == (0, 7)
