"""Several sources in one cache."""

from __future__ import annotations

import shutil

import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from kit import make_source, paint, parts_of, prompt_of, write_prompts


def rows_of(folder):
    return list(zip(*Cache(folder).text("imgId", "source", "prompt").values(), strict=True))


def test_sources_with_the_same_ids_are_kept_apart(cli, here, models):
    make_source(here / "comp" / "images", 5)
    make_source(here / "external", 4, first=2)
    said = cli("extract", "comp/images", "external", *models, "--cache", "cache", "--json")
    assert said.code == 0, said.err
    assert (said.json["rows"], [one["new"] for one in said.json["sources"]]) == (9, [5, 4])
    assert "source external, 2 of 2" in said.err
    expected = [
        *((f"img{n:03d}", "comp", prompt_of(n)) for n in range(5)),
        *((f"external/img{n:03d}", "external", prompt_of(n)) for n in range(2, 6)),
    ]
    assert rows_of("cache") == expected
    before = parts_of(here / "cache")
    for again in ([], ["comp/images", "external"], ["external", "comp/images"], ["external"]):
        said = cli("extract", *again, "--cache", "cache", "--json")
        assert (said.code, said.json["rows"], said.json["new"]) == (0, 9, 0), said.err
    assert parts_of(here / "cache") == before
    paint(here / "external" / "img007.png", 7)
    write_prompts(here / "external", {f"img{n:03d}": prompt_of(n) for n in (2, 3, 4, 5, 7)})
    assert cli("extract", "--cache", "cache").code == 0
    assert rows_of("cache") == [*expected, ("external/img007", "external", prompt_of(7))]
    assert cli("verify", "--cache", "cache").code == 0


def test_a_source_added_later_gives_the_same_cache(cli, here, models):
    make_source(here / "comp", 5)
    make_source(here / "external", 4, first=2)
    for cache, calls in (
        ("one", [("ours=comp", "external")]),
        ("two", [("comp",), ("ours=comp", "external")]),
        ("three", [("ours=comp",), ("external=external",)]),
    ):
        for sources in calls:
            said = cli("extract", *sources, *models, "--cache", cache)
            assert said.code == 0, said.err
    assert rows_of("one") == rows_of("two") == rows_of("three")
    assert rows_of("one")[0][1] == "ours"
    caches = [Cache(here / name) for name in ("one", "two")]
    values = [cache.values(cache.manifest.of_kind("features")[0]) for cache in caches]
    assert (values[0] == values[1]).all()
    shutil.copytree(here / "external", here / "elsewhere")
    cli("extract", "external=elsewhere", *models, "--cache", "one").refused(
        2, "two sources are called external"
    )
    shutil.rmtree(here / "external")
    said = cli("extract", "external=elsewhere", *models, "--cache", "one", "--json")
    assert (said.code, said.json["new"], said.json["rows"]) == (0, 0, 9), said.err
    assert f"is taken to have moved to {here / 'elsewhere'}" in said.err
    (here / "other").mkdir()
    shutil.move(here / "elsewhere", here / "other" / "elsewhere")
    said = cli("extract", "comp", "other/elsewhere", *models, "--cache", "one", "--json")
    assert (said.code, said.json["new"], said.json["rows"]) == (0, 0, 9), said.err


def test_a_held_out_data_set_from_two_sources(cli, here, models):
    make_source(here / "ours", 6)
    write_prompts(here / "ours", {"img000": "pixel art"} | {f"img{n:03d}": prompt_of(n) for n in range(1, 6)})
    make_source(here / "external", 6, first=4)
    assert cli("extract", "ours", "external", *models, "--cache", "cache").code == 0
    said = cli(
        *("fit", "--head", "mean", "--test", "source=external", "--cache", "cache"),
        *("--group-threshold", "1", "--json"),
    )
    assert said.code == 0, said.err
    # Two images are the same; to the encoder three more have equal prompts, since it knows no numbers.
    assert "test set source=external: 6 rows; fitted on 1 other, without 5 that are near" in said.err
    assert said.json["metrics"]["n"] == 6
    said = cli("fit", "--head", "mean", "--test", "source=extrenal", "--cache", "cache")
    assert said.code == 2
    assert "error: --test: no usable row has source=extrenal; there are 'external', 'ours'" in said.err


def test_what_cannot_be_several_sources(cli, here, models):
    make_source(here / "a" / "images", 2)
    make_source(here / "b" / "a", 2)
    for sources, words in (
        (("a/images", "b/a"), "two sources are called a; give each a name of its own"),
        (("a/images", "=b/a"), "must be a path, or NAME=PATH"),
        (("a/images", "b", "--prompts", "b/a/prompts.csv"), "--prompts goes with one source"),
        (("a/images", "b/a", "--dry-run"), "two sources are called a"),
        (("a/images", "b=b/a", "--shard", "1/2"), "2 sources were named"),
        (("a/images", "c=b/c"), "there is no file or folder b/c"),
    ):
        cli("extract", *sources, *models, "--cache", "cache").refused(2, words)
    (here / "bare").mkdir()
    paint(here / "bare" / "0.png", 1)
    cli("extract", "a/images", "bare", *models, "--cache", "cache").refused(1, "the one image of")
    assert not (here / "cache").exists()
    assert cli("extract", "a/images", *models, "--cache", "cache").code == 0
    said = cli("extract", "b/a", *models, "--cache", "cache")
    said.refused(2, "imgId 'img000' is cached already from another source; name both sources in one call")
    assert cli("extract", "b=b/a", *models, "--cache", "cache").code == 0
    assert [row[:2] for row in rows_of("cache")] == [
        ("img000", ""),
        ("img001", ""),
        ("b/img000", "b"),
        ("b/img001", "b"),
    ]


def test_a_column_source_of_the_table_is_left_out_and_said(cli, here, models):
    make_source(here / "a", 2)
    (here / "a" / "prompts.csv").write_text("imgId,prompt,source\nimg000,one,web\nimg001,two,web\n")
    make_source(here / "b", 2)
    said = cli("extract", "a", "b", *models, "--cache", "cache")
    assert "the table's own column source is left out" in said.err
    assert [row[1] for row in rows_of("cache")] == ["a", "a", "b", "b"]


def test_a_dry_run_looks_at_each(cli, here, models):
    make_source(here / "a", 2)
    make_source(here / "b", 3)
    said = cli("extract", "a", "other=b", *models, "--cache", "cache", "--dry-run", "--json")
    assert said.code == 0, said.err
    first = [look["first"][0] for look in said.json["sources"]]
    assert [(row["imgId"], row["source"]) for row in first] == [("img000", "a"), ("other/img000", "other")]
    assert not (here / "cache").exists()
    assert cli("extract", "a", "other=b", *models, "--cache", "cache").code == 0
    said = cli("extract", "--cache", "cache", "--dry-run", "--json")
    assert [(look["pairs"], look["new"]) for look in said.json["sources"]] == [(2, 0), (3, 0)]
    assert "3 pairs" in cli("extract", "b", "--cache", "cache", "--dry-run").out


def test_python_takes_several_sources(here, tiny):
    make_source(here / "a", 2)
    make_source(here / "b", 2)
    options = {"backbones": tiny.cnn, "encoder": tiny.encoder}
    cache = ipc.extract(["a", f"other={here / 'b'}"], here / "cache", **options)
    assert cache.text("source")["source"] == ["a", "a", "other", "other"]
    with pytest.raises(UsageError, match="names no source"):
        ipc.extract([], here / "cache", **options)
