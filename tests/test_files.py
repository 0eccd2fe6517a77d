from __future__ import annotations

import os
from pathlib import Path

import pytest

from img2prompt_cache.files import STALE_SECONDS, hold, holding, sweep

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders cannot be locked")


def age(folder: Path, seconds: float) -> None:
    then = folder.stat().st_mtime - seconds
    os.utime(folder, (then, then))


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    lock = hold(tmp_path)
    with pytest.raises(BlockingIOError):
        hold(tmp_path)
    os.close(lock)
    os.close(hold(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_only_a_folder_is_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link", "gone"):
        with pytest.raises(OSError):
            hold(tmp_path / name)


def test_what_is_held_young_or_of_another_name_is_not_swept(tmp_path: Path) -> None:
    for name in (".fetch-old", ".fetch-held", ".fetch-young", "models"):
        (tmp_path / name / "inner").mkdir(parents=True)
        age(tmp_path / name, 10 if name == ".fetch-young" else STALE_SECONDS + 10)
    (tmp_path / ".fetch-link").symlink_to(tmp_path / "models")
    os.utime(tmp_path / ".fetch-link", (0, 0), follow_symlinks=False)
    with holding(tmp_path / ".fetch-held"):
        sweep(tmp_path, ".fetch-*")
    assert {path.name for path in tmp_path.iterdir()} == {
        *(".fetch-held", ".fetch-young", ".fetch-link", "models")
    }
    assert (tmp_path / "models" / "inner").is_dir()
    sweep(tmp_path, ".fetch-*")
    assert not (tmp_path / ".fetch-held").exists()
