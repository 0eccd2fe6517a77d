"""Trying failed rows again: what was bad and is good now is filled in, everything else stays bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.repair import repair
from img2prompt_cache.models.backbones.taps import choose_taps
from kit import Log, Tiny, make_source, paint, parts_of


def columns(folder: Path) -> dict[str, np.ndarray]:
    cache = Cache(folder)
    return {column.folder: cache.values(column) for column in cache.manifest.columns[1:]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """24 images, three parts; three of the first part and one of the last are bad."""
    folder = make_source(tmp_path / "images", 24)
    for number in (1, 2, 6, 20):
        (folder / f"img{number:03d}.png").write_bytes(b"bad" * number)
    shutil.copy(folder / "img003.png", folder / "img004.png")
    return folder


def mend(source: Path, *numbers: int) -> None:
    for number in numbers:
        paint(source / f"img{number:03d}.png", number)


def test_rows_that_are_good_now_are_filled_in_and_the_others_stay(
    source: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    tiny.extract(source, folder)
    before, values, text = parts_of(folder), columns(folder), Cache(folder).text("imgId", "sha256", "reason")
    mend(source, 1, 6)
    log = Log()
    report = tiny.extract(source, folder, log, retry_failed=True)
    assert log.notes == ["trying 4 rows in 2 parts again", "2 of them are good now"]
    assert (report.ok, report.failed, report.fresh) == (22, 2, 0)
    assert Cache(folder).verify() == []
    assert Cache(folder).unrecorded() == []
    after = parts_of(folder)
    revised = {name.replace("-r1", "") for name in after if "-r1" in name}
    assert revised == {name for name in before if "00000" in name and "targets" not in name}
    assert {name: after[name] for name in before if name not in revised} == {
        name: data for name, data in before.items() if name not in revised
    }
    tiny.extract(source, tmp_path / "fresh")
    fresh, found = columns(tmp_path / "fresh"), columns(folder)
    for name in values:
        old = np.delete(np.arange(24), [1, 6])
        np.testing.assert_array_equal(found[name][old], values[name][old])
        np.testing.assert_allclose(found[name], fresh[name], rtol=2e-3, atol=1e-3)
    now = Cache(folder).text("imgId", "sha256", "reason", "status", "prompt", "uri")
    assert now == Cache(tmp_path / "fresh").text(*now)
    assert now["imgId"] == text["imgId"]
    with h5py.File(folder / "cache.h5") as file:
        assert np.isfinite(file[Cache(folder).manifest.columns[1].folder][6]).all()


def test_a_second_time_gets_the_next_name_and_a_third_changes_nothing(
    source: Path, tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    folder = tmp_path / "cache"
    tiny.extract(source, folder)
    mend(source, 1)
    tiny.extract(source, folder, retry_failed=True)
    mend(source, 2, 6)
    tiny.extract(source, folder, retry_failed=True)
    rows, features, targets = Cache(folder).manifest.columns
    assert rows.parts[0].file == "rows/00000-r2.h5"
    assert rows.parts[0].retried == features.parts[0].retried == ((1,), (2, 6))
    assert targets.parts[0].file.endswith("/00000.h5")
    assert {path.name for path in (folder / "rows").iterdir()} == {"00000-r2.h5", "00001.h5", "00002.h5"}
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}
    tiny.extract(source, folder, log, retry_failed=True)
    assert log.notes == ["trying 1 row in 1 part again", "0 of them are good now"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")} == before
    mend(source, 20)
    tiny.extract(source, folder, retry_failed=True)
    tiny.extract(source, folder, log, retry_failed=True)
    assert log.notes[-1] == "no row failed, so there is none to try again"
    # A backbone that comes later computes all of them at once.
    tiny.extract(source, folder, backbones=(tiny.vit,))
    late = Cache(folder).manifest.of_kind("features")[1]
    assert all(part.retried == () for part in late.parts)
    assert np.isfinite(Cache(folder).values(late)).all()


def test_what_a_later_backbone_missed_is_tried_again(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    tiny.extract(source, folder)
    away = [source / f"img{number:03d}.png" for number in (3, 10, 11)]
    for path in away:
        path.rename(path.with_suffix(".away"))
    tiny.extract(source, folder, backbones=(tiny.vit,))
    paint(away[2], 99)  # another image than the one that was cached
    for path in away[:2]:
        path.with_suffix(".away").rename(path)
    mend(source, 2)
    first = columns(folder)
    tiny.extract(source, folder, retry_failed=True)
    rows, one, late = Cache(folder).manifest.columns[:2] + Cache(folder).manifest.of_kind("features")[1:]
    assert Cache(folder).missing([late]) == {11}
    assert (one.parts[0].retried, late.parts[0].retried) == (((2,),), ((2,), (3,)))
    assert (one.parts[1].retried, late.parts[1].retried) == ((), ((10,),))
    assert rows.parts[1].file == "rows/00001.h5"
    found = columns(folder)[late.folder]
    assert np.flatnonzero(np.isnan(found).all(1)).tolist() == [1, 6, 11, 20]
    old = np.delete(np.arange(24), [2, 3, 10, 11])
    np.testing.assert_array_equal(found[old], first[late.folder][old])


def test_all_kinds_of_columns_are_filled_in_and_can_be_repaired(
    source: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    options = {"backbones": (tiny.vit,), "taps": choose_taps(trunk=1, trunk_dtype="int8", views=2)}
    tiny.extract(source, folder, **options)
    mend(source, 1, 2)
    tiny.extract(source, folder, retry_failed=True, backbones=())
    mend(source, 6)
    tiny.extract(source, folder, retry_failed=True, backbones=())
    kinds = {column.kind for column in Cache(folder).manifest.columns}
    assert kinds == {"rows", "features", "trunk", "views", "targets"}
    tiny.extract(source, tmp_path / "fresh", **options)
    fresh = columns(tmp_path / "fresh")
    for name, values in columns(folder).items():
        np.testing.assert_allclose(values, fresh[name], rtol=0.05, atol=0.05)
    before = parts_of(folder)
    for name in before:
        (folder / name).unlink()
    assert repair(folder).left == ()
    assert parts_of(folder) == before


def test_a_damaged_part_is_not_copied_from(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    tiny.extract(source, folder)
    mend(source, 1)
    path = folder / Cache(folder).manifest.columns[1].parts[0].file
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    before = parts_of(folder)
    with pytest.raises(Img2PromptError, match=r"00000\.h5 is damaged.*repair"):
        tiny.extract(source, folder, retry_failed=True)
    assert {name: data for name, data in parts_of(folder).items() if "-r1" not in name} == before
    assert not (folder / ".redo").exists()
    path.write_bytes(path.read_bytes()[:-3] + bytes([data[-3] ^ 1]) + path.read_bytes()[-2:])
    tiny.extract(source, folder, retry_failed=True)
    assert Cache(folder).verify() == []
    assert Cache(folder).unrecorded() == []


DIE = """
import os, sys
from pathlib import Path
from img2prompt_cache.cache import writer
from img2prompt_cache.extraction import retry
from kit import Log, Tiny
module, name = (writer, "save_manifest") if sys.argv[1] == "saved" else (retry, "patch_part")
kept = getattr(module, name)

def die(*arguments, **options):
    kept(*arguments, **options)
    os._exit(9)

setattr(module, name, die)
Tiny(*sys.argv[4:]).extract(Path(sys.argv[2]), Path(sys.argv[3]), retry_failed=True)
"""


@pytest.mark.parametrize("moment", ["saved", "written"])
def test_killed_while_retrying_it_goes_on(moment: str, source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    tiny.extract(source, folder)
    mend(source, 1, 20)
    shutil.copytree(folder, tmp_path / "whole")
    tiny.extract(source, tmp_path / "whole", retry_failed=True)
    done = subprocess.run(
        [sys.executable, "-c", DIE, moment, source, folder, tiny.cnn, tiny.vit, tiny.encoder],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 9
    assert Cache(folder).verify() == []
    tiny.extract(source, folder, retry_failed=True)
    expected = parts_of(tmp_path / "whole")
    assert {name: data for name, data in parts_of(folder).items() if name in expected} == expected
    assert Cache(folder).manifest.columns == Cache(tmp_path / "whole").manifest.columns
    with h5py.File(folder / "cache.h5") as file:
        assert np.isfinite(file[Cache(folder).manifest.columns[1].folder][[1, 20]]).all()
