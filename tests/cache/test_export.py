"""One file that holds what the cache holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from img2prompt_cache.cache.export import pack
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.locks import temporary_name
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.progress import Event
from kit import Tiny


def packed(folder: Path, out: Path, **options: bool) -> int:
    return pack(Cache(folder), out, **options)


def test_it_holds_what_the_view_shows_and_needs_no_other_file(
    pairs: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("img2prompt_cache.cache.export._BLOCK", 100)  # so that parts go in several pieces
    folder = tmp_path / "cache"
    tiny.extract(pairs, folder, taps=choose_taps(trunk=1, trunk_dtype="int8"))
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere" / "all.h5"
    told: list[Event] = []
    size = pack(Cache(folder), out, tell=told.append)
    assert size == out.stat().st_size
    assert told == [Event("step", "pack", done, 12) for done in range(13)]
    names: list[str] = []
    with h5py.File(folder / "cache.h5") as view, h5py.File(out) as file:
        view.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) == 6 + 1 + 2 + 1
        for name in names:
            dataset = file[name]
            assert (dataset.is_virtual, dataset.external, dataset.chunks) == (False, None, None)
            assert (dataset.dtype, dataset.shape) == (view[name].dtype, view[name].shape)
            np.testing.assert_array_equal(dataset[()], view[name][()])
        column = Cache(folder).manifest.columns[1]
        assert file[column.folder].attrs["spec"] == column.spec
        assert json.loads(file[column.folder].attrs["fingerprint"]) == column.fingerprint
        assert file["rows/prompt"].asstr()[0].endswith("pixel art")
        shown = {name: view[name][()] for name in names}
    shutil.rmtree(folder)
    with h5py.File(out) as file:
        for name, values in shown.items():
            np.testing.assert_array_equal(file[name][()], values)


def test_rows_that_a_column_does_not_have_are_nan(cache: Path, tmp_path: Path) -> None:
    data = json.loads((cache / "cache.json").read_text())
    del data["columns"][1]["parts"][1:]
    (cache / "cache.json").write_text(json.dumps(data))
    packed(cache, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:
        values = file[data["columns"][1]["folder"]][()]
    assert np.isfinite(values[:8]).all()
    assert np.isnan(values[8:]).all()


def test_what_is_there_is_kept_unless_asked(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.h5"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists; `overwrite=True` replaces it"):
        packed(cache, out)
    assert out.read_text() == "mine"
    with pytest.raises(UsageError, match=r"all\.h5 is there and was not made by `pack\(\)`"):
        packed(cache, out, overwrite=True)
    assert out.read_text() == "mine"
    out.write_text("")
    for _ in range(2):
        packed(cache, out, overwrite=True)
        assert h5py.is_hdf5(out)
    with pytest.raises(UsageError, match=r"the extension must be one of \.h5, \.hdf5"):
        packed(cache, tmp_path / "i000.png", overwrite=True)
    for place, words in [
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "all.h5", "there is no folder"),
        (cache / "cache.h5", "lies among the files of the cache"),
        (cache / "features" / "all.h5", "lies among the files of the cache"),
    ]:
        with pytest.raises(UsageError, match=words):
            packed(cache, place, overwrite=True)


def test_a_damaged_part_is_not_packed(cache: Path, tmp_path: Path) -> None:
    packed(cache, tmp_path / "all.h5")
    before = (tmp_path / "all.h5").read_bytes()
    path = cache / Cache(cache).manifest.columns[2].parts[1].file
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(Img2PromptError, match=r"00001\.h5 is damaged"):
        packed(cache, tmp_path / "all.h5", overwrite=True)
    assert (tmp_path / "all.h5").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.h5", "cache"]


def test_a_disk_with_too_little_room(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(Img2PromptError, match="and the disk has 0 MB left"):
        packed(cache, tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()


PACKS = """
import sys
from pathlib import Path
from img2prompt_cache.cache.export import pack
from img2prompt_cache.cache.reader import Cache
for _ in range(15):
    pack(Cache(sys.argv[1]), Path(sys.argv[2]), overwrite=True)
"""


def test_of_two_processes_that_write_one_file_each_writes_it_whole(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.h5"
    packed(made, out)
    whole = out.read_bytes()
    writers = [subprocess.Popen([sys.executable, "-c", PACKS, made, out]) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        assert out.read_bytes() == whole
    assert [writer.wait() for writer in writers] == [0, 0]
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_killed_process_left_beside_it_is_removed(made: Path, tmp_path: Path) -> None:
    (tmp_path / temporary_name("all.h5")).touch()
    packed(made, tmp_path / "other.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["other.h5"]
