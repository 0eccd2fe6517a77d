"""`cache.h5`, read with plain h5py."""

from __future__ import annotations

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
from img2prompt_cache.cache.virtual import build_view
from kit import Tiny


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
