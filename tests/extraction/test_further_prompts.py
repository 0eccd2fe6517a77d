"""Images with several prompts through a pass: encoded, updated, interrupted, joined, repaired, packed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import img2prompt_cache.extraction.look as looking
from img2prompt_cache.cache.export import pack
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.extraction.repair import repair
from img2prompt_cache.extraction.shards import extract_shard, finish, parse_shard
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.sources import open_source
from kit import Log, Tiny, make_source, parts_of, prompt_of, save_encoder
from synthetic import Cli

ROWS = 20
SEVERAL = {1: ["a calm sea", "night, art"], 4: ["red boats"], 5: ["a calm sea"], 13: ["two", "sea", "4k art"]}


def write_captions(source: Path, several: dict[int, list[str]]) -> None:
    """Write a table with a row for each prompt."""
    rows = [(n, text) for n in range(ROWS) for text in (prompt_of(n), *several.get(n, ()))]
    with (source / "prompts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("imgId", "prompt"), *((f"img{n:03d}", text) for n, text in rows)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = make_source(tmp_path / "images", ROWS)
    write_captions(folder, SEVERAL)
    return folder


def require_encoded(folder: Path, tiny: Tiny, several: dict[int, list[str]], room: int) -> None:
    """Require the texts of all prompts, and that their embeddings are the encoder's own."""
    cache = Cache(folder)
    assert cache.text("prompt")["prompt"] == [prompt_of(n) for n in range(ROWS)]
    texts = [json.loads(text) if text else [] for text in cache.text("more_prompts")["more_prompts"]]
    assert texts == [several.get(n, []) for n in range(ROWS)]
    column = cache.column("more_targets", tiny.encoder)
    values = cache.values(column)
    encoder = load_encoder(tiny.encoder)
    assert column.shape == (room, encoder.dim)
    for row, each in enumerate(texts):
        there = each[:room]
        assert np.isnan(values[row, len(there) :]).all()
        if there:
            np.testing.assert_allclose(values[row, : len(there)], encoder.encode(there), atol=1e-6)
    assert cache.verify() == []
    assert cache.unrecorded() == []


def test_a_pass_encodes_every_prompt(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    log = Log()
    tiny.extract(source, tmp_path / "cache", log)
    require_encoded(tmp_path / "cache", tiny, SEVERAL, 3)
    tiny.extract(source, tmp_path / "again")
    assert parts_of(tmp_path / "again") == parts_of(tmp_path / "cache")
    # The first prompts, and all that is made of them, are those of a cache without the others.
    write_captions(source, {})
    tiny.extract(source, tmp_path / "first")
    first, all_parts = parts_of(tmp_path / "first"), parts_of(tmp_path / "cache")
    assert not any(name.startswith("more_targets") for name in first)
    alike = [name for name in first if name.startswith(("features", "targets"))]
    one, other = Cache(tmp_path / "first"), Cache(tmp_path / "cache")
    for name in alike:
        assert len(first[name]) == len(all_parts[name])
    for column in one.manifest.columns[1:]:
        same = other.column(column.kind, column.spec)
        np.testing.assert_array_equal(one.values(column), other.values(same))


def test_a_damaged_part_is_repaired(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    tiny.extract(source, folder)
    before = parts_of(folder)
    damaged = [name for name in before if name.startswith(("more_targets", "rows"))]
    for name in damaged:
        (folder / name).write_bytes(b"")
    assert sorted(repair(folder).parts) == sorted(damaged)
    assert parts_of(folder) == before


def test_other_readers_find_all_prompts(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    tiny.extract(source, folder)
    cache = Cache(folder)
    pack(cache, tmp_path / "packed.h5")
    column = cache.column("more_targets", tiny.encoder)
    for path in (folder / "cache.h5", tmp_path / "packed.h5"):
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file[column.folder][:], cache.values(column))
            assert file["rows/extra.more_prompts"].asstr()[1] == '["a calm sea", "night, art"]'


def test_changes_are_told_and_taken_in_only_with_update(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    tiny.extract(source, folder)
    now = {**SEVERAL, 5: ["red boats", "sea"], 7: ["night"]}
    del now[13]
    write_captions(source, now)
    log = Log()
    tiny.extract(source, folder, log)
    assert any("3 images have further prompts that are not the cached ones" in note for note in log.notes)
    require_encoded(folder, tiny, SEVERAL, 3)
    report = tiny.extract(source, folder, update=True)
    assert report.changes.counts() == "3 with other texts"
    require_encoded(folder, tiny, now, 3)
    assert Cache(folder).manifest.updates[-1]["changed"] == "3 images with other further prompts"
    write_captions(source, {})
    tiny.extract(source, folder, update=True)
    require_encoded(folder, tiny, {}, 3)
    tiny.extract(source, folder, log := Log(), update=True)
    assert not log.plans[-1].columns


def test_a_cache_of_single_prompts_takes_further_ones_in(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    write_captions(source, {})
    tiny.extract(source, folder)
    before = parts_of(folder)
    write_captions(source, SEVERAL)
    tiny.extract(source, folder)
    assert parts_of(folder) == before
    tiny.extract(source, folder, update=True)
    require_encoded(folder, tiny, SEVERAL, 3)
    # What is taken in is what a new cache holds, and can be repaired.
    tiny.extract(source, tmp_path / "fresh")
    column = Cache(folder).column("more_targets", tiny.encoder)
    np.testing.assert_array_equal(
        Cache(folder).values(column), Cache(tmp_path / "fresh").values(column_of(tmp_path / "fresh", tiny))
    )
    whole = parts_of(folder)
    for name in whole:
        if name.startswith(("more_targets", "rows")):
            (folder / name).write_bytes(b"")
    assert repair(folder).left == ()
    assert parts_of(folder) == whole


def column_of(folder: Path, tiny: Tiny) -> object:
    return Cache(folder).column("more_targets", tiny.encoder)


def test_more_prompts_than_there_is_room_for(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    write_captions(source, {4: ["red boats"]})
    tiny.extract(source, folder)
    write_captions(source, SEVERAL)
    log = Log()
    tiny.extract(source, folder, log, update=True)
    assert any("has room for 2 prompts of an image" in note and "up to 4" in note for note in log.notes)
    require_encoded(folder, tiny, SEVERAL, 1)


def test_a_source_with_several_joins_one_without(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    tiny.extract(make_source(tmp_path / "other", 5, first=90), folder)
    tiny.extract(source, folder)
    cache = Cache(folder)
    assert [bool(text) for text in cache.text("more_prompts")["more_prompts"]] == [
        *[False] * 5,
        *(n in SEVERAL for n in range(ROWS)),
    ]
    values = cache.values(cache.column("more_targets", tiny.encoder))
    assert np.isfinite(values[:, :, 0]).sum() == sum(map(len, SEVERAL.values()))


def test_a_dry_run_and_info_say_so(
    source: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = looking.look(source, tmp_path / "cache", backbones=tiny.cnn, encoder=tiny.encoder)
    assert "4 images have several prompts" in str(found)
    assert f"{prompt_of(1)} (and 2 more)" in str(found)
    assert json.loads(found.first[1]["more_prompts"]) == SEVERAL[1]
    assert any(name.startswith("more_targets/") for name in found.plan.columns)
    tiny.extract(source, tmp_path / "cache")
    said = Cli(capsys)("info", "--cache", tmp_path / "cache", "--json").json
    shapes = [each["shape"] for each in said["columns"] if each["kind"] == "more_targets"]
    assert (shapes, said["several_prompts"]) == ([[ROWS, 3, load_encoder(tiny.encoder).dim]], 4)


def test_shards_give_what_one_pass_gives(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    tiny.extract(source, tmp_path / "one")
    for which in ("2/2", "1/2"):
        extract_shard(tmp_path / "many", open_source(source), tiny.config(), parse_shard(which))
    finish(tmp_path / "many", tiny.config())
    assert parts_of(tmp_path / "many") == parts_of(tmp_path / "one")


def test_an_update_is_right_for_every_encoder(source: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder, fresh = tmp_path / "cache", tmp_path / "fresh"
    encoders = (tiny.encoder, f"st:local-dir:{save_encoder(tmp_path / 'other', seed=5)}")
    for encoder in encoders:
        tiny.extract(source, folder, encoder=encoder)
    kinds = [column.kind for column in Cache(folder).manifest.columns if column.from_prompts]
    assert kinds == ["targets", "more_targets"] * 2
    # First prompts change in the first part, further ones in the last.
    rows = [[f"img{n:03d}", f"red sea, {n} boats" if n < 3 else prompt_of(n)] for n in range(ROWS)]
    rows += [[f"img{n:03d}", text] for n, texts in {**SEVERAL, 18: ["night"]}.items() for text in texts]
    with (source / "prompts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["imgId", "prompt"], *rows])
    report = tiny.extract(source, folder, update=True)
    assert (len(report.changes.prompts), len(report.changes.more_prompts)) == (3, 1)
    for encoder in encoders:
        tiny.extract(source, fresh, encoder=encoder)
    one, other = Cache(folder), Cache(fresh)
    for column in (column for column in one.manifest.columns if column.from_prompts):
        np.testing.assert_array_equal(
            one.values(column), other.values(other.column(column.kind, column.spec)), err_msg=column.folder
        )
    assert one.text("prompt", "more_prompts") == other.text("prompt", "more_prompts")
