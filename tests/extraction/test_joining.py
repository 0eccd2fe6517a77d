"""Many small passes: parts are joined, keep their values, and can be computed again byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from img2prompt_cache.cache import joining
from img2prompt_cache.cache.manifest import ROW_COLUMNS
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.extraction import plan
from img2prompt_cache.extraction.repair import Repaired, repair
from kit import Log, Tiny, paint, parts_of, prompt_of, write_prompts

MOST = 4


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MANY_PARTS", MOST)
    monkeypatch.setattr(joining, "_ENOUGH", 2)


def grow(source: Path, count: int, failing: int = -1) -> None:
    """Make the first images of a source; one of them cannot be read."""
    source.mkdir(exist_ok=True)
    for number in range(count):
        path = source / f"img{number:03d}.png"
        if path.exists():
            continue
        if number == failing:
            path.write_bytes(b"no image")
        else:
            paint(path, number)
    write_prompts(source, {f"img{n:03d}": prompt_of(n) for n in range(count)})


def small_passes(tiny: Tiny, folder: Path, source: Path, last: int, **options: object) -> None:
    """Add two rows in each pass."""
    rows = Cache(folder).rows if folder.exists() else 0
    for count in range(rows + 2, last + 1, 2):
        grow(source, count, failing=3)
        tiny.extract(source, folder, part_rows=4, batch_size=4, **options)


def values(folder: Path) -> dict[str, np.ndarray | list[str]]:
    cache = Cache(folder)
    found = {column.folder: cache.values(column) for column in cache.manifest.columns[1:]}
    return {**found, **cache.text(*ROW_COLUMNS)}


def edges(folder: Path) -> list[tuple[int, int]]:
    (found,) = {
        tuple((part.start, part.stop) for part in column.parts) for column in Cache(folder).manifest.columns
    }
    return list(found)


def assert_whole(folder: Path) -> None:
    cache = Cache(folder)
    assert (cache.verify(), cache.unrecorded(), cache.crowded()) == ([], [], [])
    with h5py.File(folder / "cache.h5") as file:
        for column in cache.manifest.columns[1:]:
            np.testing.assert_array_equal(file[column.folder][()], cache.values(column))
        assert file["rows/imgId"].asstr()[()].tolist() == cache.text("imgId")["imgId"]


@pytest.fixture
def crowded(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A source and a cache of ten rows in five parts, the second of them retried."""
    source, folder = tmp_path / "images", tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(joining, "MANY_PARTS", 100)
        small_passes(tiny, folder, source, 10)
        paint(source / "img003.png", 3)
        tiny.extract(source, folder, retry_failed=True)
    assert edges(folder) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    return source, folder


def test_values_stay_as_they_are(crowded: tuple[Path, Path], tiny: Tiny, log: Log) -> None:
    source, folder = crowded
    before = values(folder)
    report = tiny.extract(source, folder, log)
    assert (report.rows, report.fresh, report.failed) == (10, 0, 0)
    assert edges(folder) == [(0, 8), (8, 10)]
    np.testing.assert_equal(values(folder), before)
    assert_whole(folder)
    part = Cache(folder).manifest.columns[1].parts[0]
    assert (part.joins, part.retried, part.schema) == ((2, 4, 6), ((3,),), 2)
    kept = parts_of(folder)
    tiny.extract(source, folder)
    assert parts_of(folder) == kept


def test_joined_parts_are_computed_again_byte_for_byte(crowded: tuple[Path, Path], tiny: Tiny) -> None:
    source, folder = crowded
    tiny.extract(source, folder)
    whole = parts_of(folder)
    for name in whole:
        (folder / name).unlink()
        assert repair(folder) == Repaired((name,), ())
    assert parts_of(folder) == whole
    for name in whole:
        (folder / name).write_bytes(b"damaged")
    assert repair(folder).left == ()
    assert parts_of(folder) == whole


def test_small_passes_go_on_and_join_again(
    crowded: tuple[Path, Path], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = crowded
    tiny.extract(source, folder, backbones=(tiny.cnn, tiny.vit))  # another column, computed over joined parts
    late = Cache(folder).manifest.of_kind("features")[1]
    assert [part.joins for part in late.parts][-1] == ()
    small_passes(tiny, folder, source, 18)
    assert len(edges(folder)) <= MOST
    assert_whole(folder)
    whole = parts_of(folder)
    for name in whole:
        (folder / name).unlink()
    assert repair(folder).left == ()
    assert parts_of(folder) == whole


def test_failed_rows_of_joined_parts_are_tried_again(tiny: Tiny, tmp_path: Path) -> None:
    source, folder = tmp_path / "images", tmp_path / "cache"
    small_passes(tiny, folder, source, 12)
    assert Cache(folder).text("status")["status"].count("failed") == 1
    before = values(folder)
    paint(source / "img003.png", 3)
    tiny.extract(source, folder, retry_failed=True)
    after = values(folder)
    assert "failed" not in after["status"]
    assert [name for name in range(12) if after["sha256"][name] != before["sha256"][name]] == [3]
    whole = parts_of(folder)
    for name in whole:
        (folder / name).unlink()
    assert repair(folder).left == ()
    assert parts_of(folder) == whole


def test_images_that_were_replaced_stay_known_as_such(
    crowded: tuple[Path, Path], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = crowded
    paint(source / "img005.png", 99)
    with monkeypatch.context() as patch:
        patch.setattr(joining, "MANY_PARTS", 100)
        tiny.extract(source, folder, update=True)
    before = values(folder)
    assert [part.replaced for part in Cache(folder).manifest.columns[1].parts] == [(), (), (5,), (), ()]
    tiny.extract(source, folder)
    assert edges(folder) == [(0, 8), (8, 10)]
    np.testing.assert_equal(values(folder), before)
    assert_whole(folder)
    part = Cache(folder).manifest.columns[1].parts[0]
    assert (part.joins, part.retried, part.replaced) == ((2, 4, 6), ((3,), (5,)), (5,))


def test_parts_of_several_sources_are_not_mixed(tiny: Tiny, tmp_path: Path) -> None:
    for number in range(6):
        source = tmp_path / f"source{number % 2}-{number // 2}"
        source.mkdir()
        for image in range(2):
            paint(source / f"img{number}{image}.png", 10 * number + image)
        write_prompts(source, {f"img{number}{image}": "a boat" for image in range(2)})
        tiny.extract(source, tmp_path / "cache")
    assert [part.source for part in Cache(tmp_path / "cache").manifest.columns[0].parts] == [*range(6)]
    assert_whole_but_many(tmp_path / "cache")


def assert_whole_but_many(folder: Path) -> None:
    assert Cache(folder).verify() == []
    assert len(edges(folder)) == 6


def test_a_damaged_part_is_not_joined(crowded: tuple[Path, Path], tiny: Tiny, log: Log) -> None:
    source, folder = crowded
    name = Cache(folder).manifest.columns[1].parts[2].file
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    before = parts_of(folder)
    tiny.extract(source, folder, log)
    assert log.notes == [
        f"the 5 parts of each column were not merged: {name} is damaged, its bytes have changed"
    ]
    assert parts_of(folder) == before


def test_too_little_room_is_told(
    crowded: tuple[Path, Path], tiny: Tiny, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = crowded
    before = parts_of(folder)
    free = shutil.disk_usage(folder)._replace(free=100)
    monkeypatch.setattr(joining.shutil, "disk_usage", lambda folder: free)
    monkeypatch.setattr(plan, "require_room", lambda *arguments: None)
    assert joining.join_small_parts(folder, Cache(folder).manifest, log) == Cache(folder).manifest
    assert "the disk has 0 MB left" in log.notes[0]
    assert parts_of(folder) == before


def test_where_files_cannot_be_linked_they_are_copied(
    crowded: tuple[Path, Path], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = crowded

    def refuse(*arguments: object) -> None:
        raise OSError(1, "Operation not permitted")

    shutil.copytree(folder, folder.with_name("other"))
    tiny.extract(source, folder)
    monkeypatch.setattr(os, "link", refuse)
    tiny.extract(source, folder.with_name("other"))
    assert parts_of(folder.with_name("other")) == parts_of(folder)


DIE = """
import os, sys
from pathlib import Path
from img2prompt_cache.cache import joining
from kit import Tiny
joining.MANY_PARTS, joining._ENOUGH = 4, 2
save = joining.save_manifest

def die(*arguments):
    if sys.argv[1] == "after":
        save(*arguments)
    os._exit(9)

joining.save_manifest = die
Tiny(*sys.argv[4:]).extract(Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_joining_it_goes_on(moment: str, crowded: tuple[Path, Path], tiny: Tiny) -> None:
    source, folder = crowded
    before = values(folder)
    done = subprocess.run(
        [sys.executable, "-c", DIE, moment, source, folder, tiny.cnn, tiny.vit, tiny.encoder],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 9
    assert Cache(folder).verify() == []
    np.testing.assert_equal(values(folder), before)
    tiny.extract(source, folder)
    assert edges(folder) == [(0, 8), (8, 10)]
    np.testing.assert_equal(values(folder), before)
    assert Cache(folder).verify() == []
