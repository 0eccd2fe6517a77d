"""`cache.h5`, read with plain h5py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from img2prompt_cache.cache.manifest import ROW_COLUMNS
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.virtual import build_view, read_notes, view_is_current
from kit import Tiny
from synthetic import make_cache


def test_the_view_holds_every_column(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    cache = Cache(made)
    text = cache.text(*ROW_COLUMNS)
    with h5py.File(made / "cache.h5") as file:
        assert sorted(file["rows"]) == sorted(ROW_COLUMNS)
        for name in ROW_COLUMNS:
            assert file[f"rows/{name}"].asstr()[()].tolist() == text[name]
            assert file[f"rows/{name}"].asstr()[9] == text[name][9]
        for column in cache.manifest.columns[1:]:
            dataset = file[column.folder]
            assert dataset.attrs["spec"] == column.spec
            assert (dataset.dtype, dataset.shape) == (column.dtype, (23, *column.shape))
            np.testing.assert_array_equal(dataset[()], cache.values(column).astype(column.dtype))


def test_a_cache_that_was_moved_is_read_from_anywhere(made: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(made, tmp_path / "far" / "cache")
    cache = Cache(moved)
    column = cache.manifest.columns[1]
    script = f"""
import h5py
with h5py.File("far/cache/cache.h5") as file:
    print(float(file["{column.folder}"][3, 0]), file["rows/prompt"][3].decode(), sep="|")
"""
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert found == f"{cache.values(column)[3, 0]}|{cache.text('prompt')['prompt'][3]}\n"


def test_rows_that_a_column_does_not_have_yet_are_nan(cache: Path, tiny: Tiny) -> None:
    manifest = Cache(cache).manifest
    features = manifest.column("features", tiny.cnn)
    short = manifest.with_column(replace(features, parts=features.parts[:1]))
    none = short.with_column(replace(manifest.columns[2], parts=()))
    build_view(cache, none)
    with h5py.File(cache / "cache.h5") as file:
        assert not np.isnan(file[features.folder][:8]).any()
        assert np.isnan(file[features.folder][8:]).all()
        assert np.isnan(file[manifest.columns[2].folder][()]).all()


def test_a_damaged_view_is_built_anew(cache: Path) -> None:
    (cache / "cache.h5").write_bytes(b"damaged")
    assert build_view(cache, Cache(cache).manifest) == cache / "cache.h5"
    with h5py.File(cache / "cache.h5") as file:
        assert file["rows/imgId"].asstr()[()].tolist() == Cache(cache).text("imgId")["imgId"]
    assert not list(cache.glob(".*.tmp"))


PAGE = Path(__file__).parents[2] / "docs" / "cache.md"
READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
import h5py
import numpy as np
from img2prompt_cache.cache.reader import Cache

{check}

cache = Cache(sys.argv[1])
for column in cache.manifest.columns[1:]:
    assert not np.isnan(cache.values(column)).any()
assert "" not in cache.text("status")["status"]
with h5py.File(cache.folder / "cache.h5") as file:
    print(np.isnan(file["features/timm-one"][:]).any(), b"" in file["rows/status"][:])
    require_readable(file, "features/timm-one")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of open files")
def test_more_parts_than_a_reader_may_open_are_found_by_the_documented_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    folder = make_cache(tmp_path / "cache", 150, part_rows=1)
    build_view(folder, Cache(folder).manifest)
    check = re.search(r"def require_readable.*?\n\n\n", PAGE.read_text(), re.DOTALL)
    assert check is not None
    script = READ.format(check=f"import resource\nfrom pathlib import Path\n{check[0]}")

    def read() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, folder]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = read()
    assert found.stdout == "True True\n"  # what HDF5 does without a word
    assert "OSError: 150 parts cannot be open at once" in found.stderr
    folder = make_cache(tmp_path / "other", 150, part_rows=8)
    build_view(folder, Cache(folder).manifest)
    found = read()
    assert (found.stdout, found.stderr) == ("False False\n", "")
    (folder / "features" / "timm-one" / "00001.h5").unlink()
    script = script.replace("cache.values(column)", "0.0")
    found = read()
    assert found.stdout == "True False\n"
    assert "parts are missing: ['features/timm-one/00001.h5']" in found.stderr


def test_codes_that_cannot_be_read_are_told_from_zeros(tuned: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tuned, tmp_path / "cache")
    (column,) = [each for each in Cache(folder).manifest.columns if each.dtype == "int8"][:1]
    (folder / column.parts[1].file).unlink()
    with h5py.File(folder / "cache.h5") as file:
        codes, scale = file[column.folder][()], file[f"{column.folder}.scale"][()]
    assert (codes[8:16] == -128).all()
    assert np.isnan(scale[8:16]).all()
    assert not (codes[:8] == -128).any()


def test_notes_that_are_many_are_not_read(cache: Path) -> None:
    assert read_notes(cache) is not None
    with h5py.File(cache / "cache.h5", "a") as file:
        del file.attrs["known"]
        file.attrs["known"] = ["{}"] * 100
    assert read_notes(cache) is None
    assert not view_is_current(cache)
