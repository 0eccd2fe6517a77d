"""What a pass finds to do where its source has changed, moved, or is another one."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from kit import Log, Tiny, make_source, parts_of, prompt_of, write_prompts


def test_prompts_that_changed_are_noted_and_the_cached_ones_stay(
    tiny: Tiny, tmp_path: Path, log: Log
) -> None:
    source = make_source(tmp_path / "images", 6)
    tiny.extract(source, tmp_path / "cache")
    before = parts_of(tmp_path / "cache")
    write_prompts(source, {f"img{n:03d}": "other" if n < 2 else prompt_of(n) for n in range(6)})
    tiny.extract(source, tmp_path / "cache", log)
    assert log.notes == [
        "2 prompts read otherwise now than when they were cached; the cached ones stay, and a new cache "
        "(--cache) takes the new ones"
    ]
    assert parts_of(tmp_path / "cache") == before


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
