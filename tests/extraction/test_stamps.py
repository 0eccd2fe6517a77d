"""The sizes and times that a cache keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from img2prompt_cache.extraction.stamps import FILE, list_stamps, load_stamps, save_stamps


def test_what_is_saved_is_loaded_for_any_number_of_rows(tmp_path: Path) -> None:
    stamps = np.arange(8).reshape(4, 2)
    save_stamps(tmp_path, stamps)
    np.testing.assert_array_equal(load_stamps(tmp_path, 4), stamps)
    np.testing.assert_array_equal(load_stamps(tmp_path, 2), stamps[:2])
    assert load_stamps(tmp_path, 6).tolist()[4:] == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"no array",
        pytest.param(None, id="pickle"),
        np.zeros((3, 3)),
        np.zeros(4, np.int64),
    ],
)
def test_a_file_that_is_no_such_thing_counts_as_none(tmp_path: Path, data: object) -> None:
    if isinstance(data, bytes):
        (tmp_path / FILE).write_bytes(data)
    else:
        np.save(tmp_path / FILE, np.array([{}], object) if data is None else data, allow_pickle=True)
    assert (load_stamps(tmp_path, 3) == -1).all()


def test_a_source_need_not_have_any() -> None:
    assert (list_stamps(object(), pa.table({"uri": ["a", "b"]})) == -1).all()
