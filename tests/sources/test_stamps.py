"""Sizes and times of the files that hold images."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from img2prompt_cache.sources import SourceOptions, open_source
from img2prompt_cache.sources.stamps import UNKNOWN, stamp_files


def test_size_and_time_of_files_links_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "é.png").write_bytes(b"four")
    os.utime(tmp_path / "a" / "é.png", ns=(5, 123_456_789_000_000_001))
    (tmp_path / "link.png").symlink_to("a/é.png")
    (tmp_path / "broken.png").symlink_to("none")
    names = ["a/é.png", "link.png", "broken.png", "none.png", "a\0b"]
    found = stamp_files(tmp_path, names)
    assert found.tolist() == [[4, 123_456_789_000_000_001]] * 2 + [[UNKNOWN] * 2] * 3
    assert stamp_files(tmp_path, []).shape == (0, 2)
    assert (stamp_files(tmp_path / "none", ["a"]) == UNKNOWN).all()


@pytest.mark.parametrize(
    ("format", "uris"),
    [
        ("webdataset", ["a.tar#512+10", "b#1.tar#512+10", "a.tar#2048+7"]),
        ("parquet", ["a.tar#0", "b#1.tar#0", "a.tar#1"]),
    ],
)
def test_images_in_one_file_have_its_size_and_time(tmp_path: Path, format: str, uris: list[str]) -> None:
    (tmp_path / "a.tar").write_bytes(b"four")
    (tmp_path / "b#1.tar").write_bytes(b"seven77")
    source = open_source(tmp_path, SourceOptions(format))
    assert source.stamps(pa.chunked_array([uris]))[:, 0].tolist() == [4, 7, 4]
