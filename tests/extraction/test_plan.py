"""What a pass decides before it begins, and what it finds where its source changed, moved or is another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction import report
from img2prompt_cache.extraction.plan import bytes_needed, choose_part_rows, find_jobs
from img2prompt_cache.extraction.work import Job
from kit import Log, Tiny, make_source, parts_of


def test_the_same_id_from_another_source_is_refused(
    cache: Path, tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    before = parts_of(cache)
    with pytest.raises(UsageError, match="imgId 'img005' is cached already from another source"):
        tiny.extract(make_source(tmp_path / "others", 3, first=5), cache)
    assert parts_of(cache) == before
    tiny.extract(make_source(tmp_path / "more", 3, first=50), cache, log)
    assert Cache(cache).text("imgId")["imgId"][23:] == ["img050", "img051", "img052"]
    assert [part.source for part in Cache(cache).manifest.columns[0].parts] == [0, 0, 0, 1]
    # A later backbone finds every image where it came from.
    tiny.extract(tmp_path / "more", cache, backbones=(tiny.vit,))
    late = Cache(cache).manifest.of_kind("features")[1]
    assert (late.rows, Cache(cache).missing([late])) == (26, set())


def test_a_source_that_moved_is_taken_for_the_same(tiny: Tiny, tmp_path: Path, log: Log) -> None:
    make_source(tmp_path / "here" / "images", 10)
    tiny.extract(tmp_path / "here" / "images", tmp_path / "cache")
    (tmp_path / "here").rename(tmp_path / "there")
    report = tiny.extract(tmp_path / "there" / "images", tmp_path / "cache", log, backbones=(tiny.vit,))
    assert (report.rows, report.fresh) == (10, 0)
    assert "is taken to have moved to" in log.notes[0]
    (entry,) = Cache(tmp_path / "cache").manifest.sources
    assert entry["root"] == str(tmp_path / "there" / "images")
    assert Cache(tmp_path / "cache").missing(list(Cache(tmp_path / "cache").manifest.columns)) == set()


def test_columns_of_the_users_table_are_kept(tiny: Tiny, tmp_path: Path) -> None:
    source = make_source(tmp_path / "images", 3)
    (source / "prompts.csv").write_text(
        "imgId,prompt,style,a/b\nimg000,a,ink,1\nimg001,b,,2\nimg002,c,oil,3\n", "utf-8"
    )
    tiny.extract(source, tmp_path / "cache")
    assert Cache(tmp_path / "cache").manifest.extra == ("style",)
    assert Cache(tmp_path / "cache").text("style") == {"style": ["ink", "", "oil"]}
    with h5py.File(tmp_path / "cache" / "cache.h5") as file:
        assert file["rows/extra.style"].asstr()[()].tolist() == ["ink", "", "oil"]
    make_source(tmp_path / "more", 2, first=10)
    tiny.extract(tmp_path / "more", tmp_path / "cache")
    assert Cache(tmp_path / "cache").text("style")["style"] == ["ink", "", "oil", "", ""]


def test_nothing_is_to_be_done_for_a_whole_cache(made: Path) -> None:
    assert find_jobs(made, Cache(made).manifest, 0, 0) == []


def test_new_rows_are_parts_of_their_own(made: Path) -> None:
    manifest = Cache(made).manifest
    jobs = find_jobs(made, manifest, 18, 5)
    assert [(job.number, job.start, job.stop, job.source) for job in jobs] == [
        *((3, 23, 31, 5), (4, 31, 39, 5), (5, 39, 41, 5))
    ]
    assert all(job.columns == manifest.columns for job in jobs)


def test_parts_that_are_gone_or_short_and_columns_that_are_new_are_to_be_done(cache: Path) -> None:
    manifest = Cache(cache).manifest
    _, features, targets = manifest.columns
    (cache / features.parts[1].file).unlink()
    (cache / targets.parts[1].file).write_bytes(b"short")
    assert [(job.number, job.columns) for job in find_jobs(cache, manifest, 0, 0)] == [
        (1, (features, targets))
    ]
    new = Column("features", "timm:new", "features/timm-new", (4,), "float16", {})
    half = replace(targets, parts=targets.parts[:1])
    jobs = find_jobs(cache, manifest.with_column(half).with_column(new), 1, 0)
    assert [[column.folder for column in job.columns] for job in jobs] == [
        ["features/timm-new"],
        [features.folder, targets.folder, "features/timm-new"],
        [targets.folder, "features/timm-new"],
        ["rows", features.folder, targets.folder, "features/timm-new"],
    ]


def test_the_room_is_estimated_from_the_shapes() -> None:
    features = Column("features", "a", "features/a", (100,), "float16", {})
    targets = Column("targets", "b", "targets/b", (30,), "float32", {})
    job = Job(0, 10, 20, 0, (features, targets))
    assert bytes_needed([job, job]) == 2 * (10 * (200 + 120) + 2 * 4096)
    assert bytes_needed([]) == 0


def test_a_listing_that_is_the_same_is_not_compared_row_by_row(
    cache: Path, pairs: Path, tiny: Tiny, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.extract(pairs, cache)

    def fail(*arguments: object) -> None:
        raise AssertionError("the rows of the cache are read")

    monkeypatch.setattr("img2prompt_cache.extraction.plan.match_rows", fail)
    monkeypatch.setattr(report, "_count", fail)
    found = tiny.extract(pairs, cache, log)
    assert (found.rows, found.fresh, found.failed, found.identical, log.plans[0].work) == (23, 0, 3, 2, 0)


def test_parts_grow_so_that_a_column_has_few_of_them(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows, size in ((1, 1024), (262_144, 1024), (262_145, 2048), (10**6, 4096), (10**8, 524_288)):
        assert choose_part_rows(rows, 1024) == size
        assert -(-rows // size) <= 256
    assert choose_part_rows(1100, 1) == 8
    monkeypatch.setattr("img2prompt_cache.extraction.plan.MANY_PARTS", 4)
    tiny.extract(make_source(tmp_path / "images", 5), tmp_path / "cache", part_rows=1)
    edges = [(part.start, part.stop) for part in Cache(tmp_path / "cache").manifest.columns[0].parts]
    assert edges == [(0, 2), (2, 4), (4, 5)]
    report = tiny.extract(tmp_path / "images", tmp_path / "cache", part_rows=1)
    assert report.fresh == 0
