"""What has changed in a source is told, and taken in where it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from img2prompt_cache.cache import writer
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.dataset import load_dataset, load_prompts
from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction import update
from img2prompt_cache.extraction.look import look
from img2prompt_cache.extraction.repair import repair
from img2prompt_cache.extraction.stamps import FILE
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.sources.table import TableSource
from kit import Log, Tiny, make_source, paint, parts_of, prompt_of
from synthetic import Cli

ROWS = 24


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """24 images, three parts, two batches each."""
    return make_source(tmp_path / "images", ROWS)


@pytest.fixture
def folder(source: Path, tiny: Tiny, tmp_path: Path) -> Path:
    tiny.extract(source, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of a backbone was given."""
    seen: list[int] = []
    read = Backbone.read

    def counting(self: Backbone, pixels: Any, names: Any) -> dict[str, np.ndarray]:
        seen.append(len(pixels))
        return read(self, pixels, names)

    monkeypatch.setattr(Backbone, "read", counting)
    return seen


def write_table(source: Path, prompts: dict[int, str] | None = None, **columns: list[str]) -> None:
    """Write the table, with other prompts for some images, and further columns."""
    lines = [",".join(["imgId", "prompt", *columns])]
    for n in range(ROWS):
        prompt = (prompts or {}).get(n, prompt_of(n))
        lines.append(",".join([f"img{n:03d}", f'"{prompt}"', *(values[n] for values in columns.values())]))
    (source / "prompts.csv").write_text("\n".join(lines) + "\n", "utf-8")


def require_same(folder: Path, source: Path, tiny: Tiny, fresh: Path, **options: Any) -> None:
    """Require that a cache holds what one has that is made of the source now, and that it can be repaired."""
    tiny.extract(source, fresh, **options)
    one, other = Cache(folder), Cache(fresh)
    names = list(one.manifest.row_datasets)
    assert one.text(*names) == other.text(*names)
    for column in one.manifest.columns[1:]:
        values = other.values(other.column(column.kind, column.spec))
        if column.kind == "targets":
            np.testing.assert_array_equal(one.values(column), values)
        np.testing.assert_allclose(one.values(column), values, rtol=0.05, atol=2e-3)
    assert (one.verify(), one.unrecorded()) == ([], [])
    before = parts_of(folder)
    for name in before:
        (folder / name).unlink()
    assert repair(folder).left == ()
    assert parts_of(folder) == before


def test_columns_of_the_users_table_are_taken_over_without_reading_an_image(
    source: Path, tiny: Tiny, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sides = tmp_path / "cache", ["train"] * ROWS
    write_table(source, split=sides, artist=["ann"] * ROWS)
    tiny.extract(source, folder)
    before = parts_of(folder)
    encoded.clear()
    sides[9], sides[11] = "test", ""
    write_table(source, split=sides, artist=["ann"] * ROWS)
    monkeypatch.setattr(TableSource, "read", None)
    log = Log()
    report = tiny.extract(source, folder, log)
    assert log.notes == [
        "column split: 2 values have changed and are taken over (first: img009 'train' → 'test')"
    ]
    assert report.changes.summary()["columns"] == {
        "split": {
            "rows": 2,
            "examples": [
                {"imgId": "img009", "was": "train", "now": "test"},
                {"imgId": "img011", "was": "train", "now": ""},
            ],
        }
    }
    assert log.plans[0].changes is report.changes
    assert Cache(folder).text("split")["split"] == sides
    assert encoded == []
    after = parts_of(folder)
    assert {*before} - {*after} == {"rows/00001.h5"}
    assert {*after} - {*before} == {"rows/00001-r1.h5"}
    log = Log()
    tiny.extract(source, folder, log)
    assert (log.notes, parts_of(folder)) == ([], after)
    monkeypatch.undo()
    require_same(folder, source, tiny, tmp_path / "fresh")


def test_columns_that_are_new_or_gone_in_the_table(
    source: Path, folder: Path, tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    sides = [f"side {n % 2}" for n in range(ROWS)]
    write_table(source, split=sides)
    report = tiny.extract(source, folder, log)
    assert log.notes == ["columns that are new in the table and kept from now on: split"]
    assert report.changes.summary()["added"] == ["split"]
    assert Cache(folder).text("split")["split"] == sides
    assert Cache(folder).manifest.extra == ("split",)
    # A source that never had it is no reason to say so.
    other = make_source(tmp_path / "others", 2, first=50)
    log.notes.clear()
    tiny.extract(other, folder, log)
    assert (log.notes, Cache(folder).text("split")["split"][ROWS:]) == ([], ["", ""])
    tiny.extract(other, folder, log)
    write_table(source)
    report = tiny.extract(source, folder, log)
    assert log.notes == ["columns that the table no longer has; their cached values stay: split"]
    assert report.changes.summary()["dropped"] == ["split"]
    assert Cache(folder).text("split")["split"] == [*sides, "", ""]


def test_a_renamed_column_is_told(source: Path, tiny: Tiny, tmp_path: Path, log: Log) -> None:
    folder, sides = tmp_path / "cache", [f"side {n % 2}" for n in range(ROWS)]
    write_table(source, fold=sides, old=["x"] * ROWS)
    tiny.extract(source, folder)
    write_table(source, side=sides, new=["y"] * ROWS)
    report = tiny.extract(source, folder, log)
    assert log.notes == [
        "columns that are new in the table and kept from now on: new",
        "column fold is called side in the table now, with the same values: side is kept from now on, and "
        "the cached values of fold stay",
        "columns that the table no longer has; their cached values stay: old",
    ]
    assert report.changes.summary()["renamed"] == {"side": "fold"}
    found = Cache(folder).text("fold", "side", "old", "new")
    assert (found["fold"], found["side"]) == (sides, sides)


def test_prompts_that_arrive_later_cost_their_targets_alone(
    source: Path, tiny: Tiny, tmp_path: Path, log: Log, encoded: list[int]
) -> None:
    folder, table = tmp_path / "cache", (source / "prompts.csv").read_bytes()
    (source / "prompts.csv").unlink()
    tiny.extract(source, folder, format="folder")
    assert np.isnan(Cache(folder).values(Cache(folder).manifest.of_kind("targets")[0])).all()
    encoded.clear()
    (source / "prompts.csv").write_bytes(table)
    report = tiny.extract(source, folder, log, format="folder")
    assert "prompts.csv is a table of prompts" in report_notes(log)
    assert report.without_prompt == ROWS
    log.notes.clear()
    report = tiny.extract(source, folder, log)
    assert log.notes == [
        "24 images that had no prompt have one now: they are taken in, and no image is encoded again "
        "(first: img000 '' → 'a calm sea at night, 0 pixel art')"
    ]
    assert (report.without_prompt, report.fresh, report.changes.taken_over, encoded) == (0, 0, ROWS, [])
    assert report.changes.summary()["new_prompts"]["rows"] == ROWS
    assert Cache(folder).manifest.updates == ()
    log.notes.clear()
    tiny.extract(source, folder, log)
    assert log.notes == []
    require_same(folder, source, tiny, tmp_path / "fresh")


def report_notes(log: Log) -> str:
    """The notes of the sources of all plans."""
    return " ".join(note for plan in log.plans for note in plan.summary.notes)


def test_texts_and_further_prompts_that_arrive_later(
    source: Path, tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    folder = tmp_path / "cache"
    (source / "prompts.csv").unlink()
    (source / "img003.txt").write_text("a calm sea")
    tiny.extract(source, folder)
    for number in (0, 7, 9):
        (source / f"img{number:03d}.json").write_text('{"prompts": ["two red boats", "boats at night"]}')
    (source / "img003.txt").write_text("another sea")
    tiny.extract(source, folder, log)
    assert log.notes[-2:] == [
        "3 images that had no prompt have one now: they are taken in, and no image is encoded again "
        "(first: img000 '' → 'two red boats')",
        "1 prompt differs from the cached one (first: img003 'a calm sea' → 'another sea'); `update=True` "
        "takes it over",
    ]
    found = Cache(folder).text("prompt", "found_in")
    assert [found["prompt"][n] for n in (0, 3, 7, 9)] == [
        "two red boats",
        "a calm sea",
        *["two red boats"] * 2,
    ]
    assert [found["found_in"][n] for n in (0, 1, 3)] == ["json", "", "text"]
    tiny.extract(source, folder, update=True)
    require_same(folder, source, tiny, tmp_path / "fresh")


def test_images_keep_their_ids_where_the_table_that_arrives_calls_them_otherwise(
    source: Path, tiny: Tiny, tmp_path: Path, log: Log, encoded: list[int]
) -> None:
    folder, table = tmp_path / "cache", (source / "prompts.csv").read_bytes()
    (source / "prompts.csv").unlink()
    whole = tmp_path / "whole"
    whole.mkdir()
    source.rename(whole / "images")
    tiny.extract(whole, folder, format="folder")
    encoded.clear()
    (whole / "prompts.csv").write_bytes(table)
    report = tiny.extract(whole, folder, log)
    assert (report.rows, report.fresh, report.without_prompt, encoded) == (ROWS, 0, 0, [])
    assert log.notes[-1] == (
        "24 images keep the imgIds they were cached with, though the source lists them under another now"
    )
    found = Cache(folder).text("imgId", "prompt")
    assert found["imgId"][:2] == ["images/img000", "images/img001"]
    assert found["prompt"] == [*map(prompt_of, range(ROWS))]


def test_a_replaced_image_is_told_and_encoded_again_only_where_asked(
    source: Path, folder: Path, tiny: Tiny, tmp_path: Path, encoded: list[int]
) -> None:
    before = parts_of(folder)
    paint(source / "img003.png", 77)
    paint(source / "img010.png", 78)
    encoded.clear()
    for _ in range(2):
        log = Log()
        report = tiny.extract(source, folder, log)
        assert log.notes == ["2 images have changed (first: img003); `update=True` encodes them again"]
        assert report.changes.summary()["images"] == {
            "rows": 2,
            "examples": [{"imgId": "img003"}, {"imgId": "img010"}],
        }
        assert (parts_of(folder), encoded) == (before, [])
    log = Log()
    report = tiny.extract(source, folder, log, update=True)
    assert log.notes == ["2 images have changed (first: img003); they are encoded again"]
    assert (report.ok, report.changes.updated, encoded) == (ROWS, True, [1, 1])
    (update,) = load_manifest(folder).updates
    assert update["changed"] == "2 images changed"
    log = Log()
    tiny.extract(source, folder, log, update=True)
    assert log.notes == []
    assert load_manifest(folder).updates == (update,)
    require_same(folder, source, tiny, tmp_path / "fresh")


def test_changes_of_cached_rows_are_counted_by_the_plan_and_by_a_dry_run(
    source: Path, folder: Path, tiny: Tiny, log: Log
) -> None:
    paint(source / "img003.png", 77)
    paint(source / "img010.png", 78)
    (source / "img012.png").unlink()
    write_table(source, {0: "a quay"})
    found = look(source, folder)
    assert (found.plan.changes.counts(), "nothing to do: 24 rows are cached" in str(found)) == ("", True)
    found = look(source, folder, update=True)
    counts = "2 encoded again, 1 with other texts, 1 left out"
    assert f"a pass would change cached rows: {counts}" in str(found)
    assert "nothing to do" not in str(found)
    assert [line.partition("; ")[2] for line in found.notes] == [
        "they would be encoded again",
        "it would be taken over",
        "it would be left out",
    ]
    report = tiny.extract(source, folder, log, update=True)
    changes = report.changes
    assert (changes.encoded_again, changes.taken_over, changes.left_out) == (2, 1, 1)
    assert f"cached rows: {counts}\nnothing else to do: 24 rows are cached" in str(log.plans[0])
    assert changes.summary()["unknown"] == 0
    tiny.extract(source, folder, log, update=True)
    assert str(log.plans[1]).endswith("\nnothing to do: 24 rows are cached")


def test_a_touched_file_costs_a_hash_and_no_forward_pass(
    source: Path, folder: Path, tiny: Tiny, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = parts_of(folder)
    encoded.clear()
    os.utime(source / "img005.png", ns=(1, 1))
    read: list[str] = []
    real = TableSource.read
    monkeypatch.setattr(TableSource, "read", lambda self, uri: read.append(uri) or real(self, uri))
    for _ in range(2):
        log = Log()
        tiny.extract(source, folder, log, update=True)
        assert (log.notes, parts_of(folder), encoded, read) == ([], before, [], ["img005.png"])


def test_check_finds_what_size_and_time_do_not_tell(source: Path, folder: Path, tiny: Tiny, log: Log) -> None:
    path = source / "img004.png"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    tiny.extract(source, folder, log)
    assert log.notes == []
    tiny.extract(source, folder, log, check=True)
    assert log.notes == ["1 image has changed (first: img004); `update=True` encodes it again"]
    log.notes.clear()
    tiny.extract(source, folder, log)  # it is not forgotten
    assert log.notes == ["1 image has changed (first: img004); `update=True` encodes it again"]


def test_a_cache_made_before_sizes_and_times_were_kept(
    source: Path, folder: Path, tiny: Tiny, log: Log
) -> None:
    (folder / FILE).unlink()
    (folder / "cache.h5").unlink()
    paint(source / "img004.png", 99)
    tiny.extract(source, folder, log)
    assert log.notes == [
        "24 images were cached without size and time, and are taken to be the same; `check=True` compares "
        "the bytes"
    ]
    log.notes.clear()
    tiny.extract(source, folder, log)
    assert log.notes == []
    tiny.extract(source, folder, log, check=True)
    assert log.notes == ["1 image has changed (first: img004); `update=True` encodes it again"]


def test_removed_rows_are_not_among_those_that_lack_something(
    source: Path, folder: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "img003.png").rename(tmp_path / "three.png")
    (source / "img012.png").unlink()
    report = tiny.extract(source, folder, backbones=(tiny.vit,))
    (late,) = report.missing
    assert (report.missing, report.without_prompt) == ({late: 2}, 0)
    lines = (source / "prompts.csv").read_text().splitlines(keepends=True)
    (source / "prompts.csv").write_text("".join(lines[:4] + lines[5:]))  # img003 has none from now on
    (tmp_path / "three.png").rename(source / "img003.png")
    report = tiny.extract(source, folder, update=True)
    assert (report.removed, report.missing, report.without_prompt) == (1, {late: 1}, 1)
    assert f"{late} lacks 1 image that" in Cli(capsys)("info", "--cache", folder).out
    (source / "img003.png").unlink()
    report = tiny.extract(source, folder, update=True)
    assert (report.removed, report.missing, report.without_prompt) == (2, {}, 0)
    assert "lacks" not in Cli(capsys)("info", "--cache", folder).out


def test_a_removed_image_is_left_out_until_it_is_back(
    source: Path, folder: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "img012.png").rename(tmp_path / "away.png")

    def said(**options: Any) -> tuple[list[str], Any]:
        log = Log()
        return log.notes, tiny.extract(source, folder, log, **options)

    before = parts_of(folder)
    notes, report = said()
    assert notes == ["1 cached image is gone from the source (first: img012); `update=True` leaves it out"]
    assert (report.ok, report.removed, parts_of(folder)) == (ROWS, 0, before)
    notes, report = said(update=True)
    assert notes == ["1 cached image is gone from the source (first: img012); it is left out"]
    assert (report.rows, report.ok, report.failed, report.removed) == (ROWS, ROWS - 1, 0, 1)
    text = Cache(folder).text("status", "reason")
    assert (text["status"][12], text["reason"][12]) == ("removed", "the image is no longer in the source")
    told = Cli(capsys)("info", "--cache", folder)
    assert told.out.startswith(f"{folder}: {ROWS} rows, {ROWS - 1} ok, 0 failed, 1 removed")
    cache = Cache(folder)
    assert prompt_of(12) not in load_prompts(cache, cache.manifest.of_kind("targets")[0])[0]
    assert "img012" not in load_dataset(cache, cache.manifest.of_kind("features"), with_prompt=None).ids
    assert said()[0] == []
    assert said(backbones=(tiny.vit,))[1].missing == {}
    (tmp_path / "away.png").rename(source / "img012.png")
    assert said()[0] == ["1 removed image is back (first: img012); `update=True` takes it in"]
    notes, report = said(update=True)
    assert (report.ok, report.removed) == (ROWS, 0)
    assert len(load_manifest(folder).updates) == 2
    require_same(folder, source, tiny, tmp_path / "fresh", backbones=(tiny.cnn, tiny.vit))


def test_changed_prompts_are_taken_over_with_their_targets(
    source: Path, folder: Path, tiny: Tiny, tmp_path: Path, encoded: list[int]
) -> None:
    before = parts_of(folder)
    encoded.clear()
    # The first of two equal prompts changes, another becomes equal to one of a later part, one is gone.
    write_table(source, {1: "a red boat", 4: prompt_of(20), 12: ""})
    log = Log()
    report = tiny.extract(source, folder, log)
    assert log.notes == [
        f"3 prompts differ from the cached ones (first: img001 {prompt_of(1)!r} → 'a red boat'); "
        "`update=True` takes them over"
    ]
    assert (parts_of(folder), report.without_prompt) == (before, 0)
    report = tiny.extract(source, folder, update=True)
    assert (report.without_prompt, encoded) == (1, [])
    assert load_manifest(folder).updates[0]["changed"] == "3 prompts changed"
    log = Log()
    tiny.extract(source, folder, log)
    assert log.notes == []
    require_same(folder, source, tiny, tmp_path / "fresh")


def test_all_kinds_of_columns_and_all_kinds_of_changes_at_once(
    source: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    options = {"backbones": (tiny.vit,), "taps": choose_taps(trunk=1, trunk_dtype="int8", views=2)}
    (source / "img002.png").write_bytes(b"bad")
    tiny.extract(source, folder, **options)
    paint(source / "img001.png", 71)
    paint(source / "img002.png", 2)  # failed before
    tiny.extract(source, folder, retry_failed=True, backbones=())
    write_table(source, {0: "a quay"}, split=["x"] * ROWS)
    shutil.move(source / "img017.png", source / "img017.webp")  # the same bytes under another name
    paint(source / "img024.png", 24)
    log = Log()
    report = tiny.extract(source, folder, log, update=True, backbones=())
    assert [line.partition(" (")[0] for line in log.notes] == [
        "columns that are new in the table and kept from now on: split",
        "1 image has moved and is the same",
        "1 image has changed",
        "1 prompt differs from the cached one",
    ]
    assert (report.fresh, report.ok) == (1, ROWS + 1)
    paint(source / "img001.png", 72)  # once more
    tiny.extract(source, folder, update=True, backbones=())
    require_same(folder, source, tiny, tmp_path / "fresh", **options)


def test_a_new_image_that_is_bad_is_a_row_with_a_reason_and_can_be_tried_again(
    source: Path, folder: Path, tiny: Tiny, tmp_path: Path
) -> None:
    (source / "img003.png").write_bytes(b"bad")
    report = tiny.extract(source, folder, update=True)
    assert (report.ok, report.failed) == (ROWS - 1, 1)
    column = Cache(folder).manifest.columns[1]
    assert np.isnan(Cache(folder).values(column)[3]).all()
    paint(source / "img003.png", 3)
    assert tiny.extract(source, folder, retry_failed=True).ok == ROWS
    require_same(folder, source, tiny, tmp_path / "fresh")


def test_an_image_that_is_replaced_or_goes_during_the_pass_is_found_by_the_next(
    source: Path, tiny: Tiny, tmp_path: Path
) -> None:
    class Meddling(Log):
        def plan(self, plan: Any) -> None:  # all is listed, and nothing is read yet
            paint(source / "img001.png", 91)
            (source / "img002.png").unlink()

        def advance(self, rows: int) -> None:  # read already
            if self.rows == 0:
                paint(source / "img000.png", 90)
            super().advance(rows)

    folder, log = tmp_path / "cache", Log()
    report = tiny.extract(source, folder, Meddling())
    assert (report.ok, report.reasons) == (ROWS - 1, {"cannot be read: No such file or directory": 1})
    tiny.extract(source, folder, log)
    assert log.notes == [
        "1 image has changed (first: img000); `update=True` encodes it again",
        "1 cached image is gone from the source (first: img002); `update=True` leaves it out",
    ]
    tiny.extract(source, folder, update=True)
    log.notes.clear()
    tiny.extract(source, folder, log, check=True)
    assert log.notes == []


def unreadable(_source: TableSource, uri: str) -> bytes:
    raise ImageError(f"{uri} cannot be read")


def test_an_image_that_cannot_be_read_to_be_compared_is_asked_for_again(
    source: Path, folder: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(source / "img003.png", 77)
    before = parts_of(folder)
    with monkeypatch.context() as patch:
        patch.setattr(TableSource, "read", unreadable)
        log = Log()
        report = tiny.extract(source, folder, log, update=True)
    assert log.notes == ["1 image cannot be read now, and stays as it was cached"]
    assert (report.changes.summary()["unreadable"], parts_of(folder)) == (1, before)
    log = Log()
    tiny.extract(source, folder, log)
    assert log.notes == ["1 image has changed (first: img003); `update=True` encodes it again"]


def test_shards_of_tar_files_that_were_written_anew(tiny: Tiny, tmp_path: Path) -> None:
    images, source, folder = make_source(tmp_path / "images", 6), tmp_path / "shards", tmp_path / "cache"
    source.mkdir()

    def pack(numbers: list[int]) -> None:
        with tarfile.open(source / "0.tar", "w") as tar:
            for n in numbers:
                (images / f"img{n:03d}.txt").write_text(prompt_of(n))
                for suffix in ("png", "txt"):
                    tar.add(images / f"img{n:03d}.{suffix}", f"img{n:03d}.{suffix}")

    pack([0, 1, 2, 3, 4])
    tiny.extract(source, folder)
    paint(images / "img001.png", 61)
    pack([5, 1, 0, 2, 3])  # in another order, without one
    log = Log()
    report = tiny.extract(source, folder, log, update=True)
    found = report.changes
    assert {len(found.images), len(found.removed), len(found.moved), report.fresh} == {1, 3}
    cache = Cache(folder)
    text = cache.text("imgId", "uri", "status")
    assert text["imgId"] == [f"0/img{n:03d}" for n in (0, 1, 2, 3, 4, 5)]
    assert text["status"] == [*["ok"] * 4, "removed", "ok"]
    late = tiny.extract(source, folder, backbones=(tiny.vit,))
    assert late.missing == {}  # every image was found in its new place


def change_much(source: Path) -> None:
    write_table(source, {0: "a quay", 21: prompt_of(3)}, split=["x"] * ROWS)
    paint(source / "img001.png", 71)
    paint(source / "img020.png", 72)
    (source / "img010.png").unlink()


def require_resumed(source: Path, folder: Path, tiny: Tiny, fresh: Path) -> None:
    """Require that a cache whose update was killed is whole, and that the next update ends it."""
    assert Cache(folder).verify() == []
    tiny.extract(source, folder, update=True)
    log = Log()
    report = tiny.extract(source, folder, log, check=True)
    assert (log.notes, report.removed) == ([], 1)
    paint(source / "img010.png", 10)
    tiny.extract(source, folder, update=True)
    require_same(folder, source, tiny, fresh)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("save_manifest", 1),
        ("save_manifest", 2),
        ("save_manifest", 3),
        ("revise_part", 3),
        ("sync_folder", 1),
    ],
)
def test_interrupted_in_the_middle_of_an_update_it_goes_on(
    name: str,
    count: int,
    source: Path,
    folder: Path,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change_much(source)
    module = writer if name == "save_manifest" else update
    kept, left = getattr(module, name), [count]

    def stop(*arguments: Any) -> Any:
        made = kept(*arguments)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return made

    with monkeypatch.context() as patch:
        patch.setattr(module, name, stop)
        with pytest.raises(KeyboardInterrupt):
            tiny.extract(source, folder, update=True)
    require_resumed(source, folder, tiny, tmp_path / "fresh")


DIE = """
import os, sys
from pathlib import Path
from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction import update
from img2prompt_cache.extraction.look import look
from kit import Tiny
kept = update.revise_part

def die(*arguments):
    kept(*arguments)
    os._exit(9)

update.revise_part = die
Tiny(*sys.argv[3:]).extract(Path(sys.argv[1]), Path(sys.argv[2]), update=True)
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_an_update_it_goes_on(
    source: Path, folder: Path, tiny: Tiny, tmp_path: Path
) -> None:
    change_much(source)
    done = subprocess.run(
        [sys.executable, "-c", DIE, source, folder, tiny.cnn, tiny.vit, tiny.encoder],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 9
    require_resumed(source, folder, tiny, tmp_path / "fresh")
