"""Parts say inside what they are: one in the place of another is refused, whatever the manifest says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.identity import BYTES, Identity
from img2prompt_cache.cache.manifest import Column, Manifest
from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.part_text import read_text
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.repair import repair
from img2prompt_cache.extraction.targets import TargetWorker
from kit import Tiny, make_source, parts_of

IDENTITY = Identity("0" * 32, "features/timm-a", 8, 16, "1" * 64)


def swap(folder: Path, one: tuple[int, int], other: tuple[int, int]) -> None:
    """Swap two parts (number of the column, number of the part) and what the manifest records of them."""
    manifest = load_manifest(folder)
    columns = list(manifest.columns)
    first, second = (columns[column].parts[number] for column, number in (one, other))
    (folder / first.file).rename(folder / "away")
    (folder / second.file).rename(folder / first.file)
    (folder / "away").rename(folder / second.file)
    for (column, number), was, now in ((one, first, second), (other, second, first)):
        parts = list(columns[column].parts)
        parts[number] = replace(was, bytes=now.bytes, sha256=now.sha256)
        columns[column] = replace(columns[column], parts=tuple(parts))
    save_manifest(folder, replace(manifest, columns=tuple(columns)))


def read_all(folder: Path) -> list[Callable[[], object]]:
    """Every way in which the values of a cache are read."""
    cache = Cache(folder)
    ways: list[Callable[[], object]] = [lambda: cache.text("imgId"), lambda: cache.table("imgId")]
    for column in cache.manifest.columns[1:]:
        ways += [
            lambda column=column: cache.values(column),
            lambda column=column: cache.mapped(column)[np.arange(cache.rows)],
            lambda column=column: cache.mapped(column)[np.array([0, 8])],
        ]
    return ways


def refused(folder: Path) -> list[str]:
    """The messages of all reads that are refused."""
    messages = []
    for read in read_all(folder):
        try:
            read()
        except Img2PromptError as error:
            messages.append(str(error))
    return messages


def test_a_whole_cache_says_what_it_is(made: Path) -> None:
    assert refused(made) == []
    for column in Cache(made).manifest.columns:
        assert len(column.cache) == 32
        for part in column.parts:
            said = json.loads((made / part.file).read_bytes()[:BYTES])
            assert (said["img2prompt-cache"], said["cache"]) == (2, column.cache)
            assert (said["column"], said["rows"]) == (column.folder, [part.start, part.stop])
            assert part.schema == 2
            with h5py.File(made / part.file) as file:
                assert file.userblock_size == BYTES


def test_parts_swapped_together_with_their_hashes_are_named(cache: Path) -> None:
    swap(cache, (1, 0), (1, 1))
    column = Cache(cache).manifest.columns[1]
    damaged = {damage.file: damage.reason for damage in Cache(cache).verify()}
    assert damaged == {
        column.parts[0].file: f"it is rows 8 to 16 of '{column.folder}', moved or renamed",
        column.parts[1].file: f"it is rows 0 to 8 of '{column.folder}', moved or renamed",
    }
    assert len(refused(cache)) == 3
    assert all("is not the part that the manifest records: it is rows" in each for each in refused(cache))


def test_parts_of_rows_are_told_apart(cache: Path) -> None:
    swap(cache, (0, 0), (0, 1))
    assert len(Cache(cache).verify()) == 2
    assert [each.partition(": ")[2].partition(",")[0] for each in refused(cache)] == [
        "it is rows 8 to 16 of 'rows'"
    ] * 2


def test_a_part_of_another_cache_or_of_other_weights_is_refused(
    cache: Path, tiny: Tiny, tmp_path: Path
) -> None:
    make_source(tmp_path / "images", 23, first=100)
    tiny.extract(tmp_path / "images", tmp_path / "other")
    theirs, ours = Cache(tmp_path / "other").manifest, Cache(cache).manifest
    assert theirs.columns[0].cache != ours.columns[0].cache
    for column, other in zip(ours.columns, theirs.columns, strict=True):
        shutil.copy(tmp_path / "other" / other.parts[0].file, cache / column.parts[0].file)
        parts = (other.parts[0], *column.parts[1:])
        save_manifest(cache, ours.with_column(replace(column, parts=parts)))
        (damage,) = [each for each in Cache(cache).verify() if each.file == column.parts[0].file]
        assert damage.reason == "it belongs to another cache"
        assert any("belongs to another cache" in each for each in refused(cache))
    features = replace(theirs.columns[1], fingerprint={**theirs.columns[1].fingerprint, "weights": "others"})
    save_manifest(tmp_path / "other", theirs.with_column(features))
    reasons = {damage.reason for damage in Cache(tmp_path / "other").verify()}
    assert reasons == {"its values were made with other weights or settings (its fingerprint differs)"}


def test_a_part_that_was_renamed_is_refused(cache: Path) -> None:
    manifest = Cache(cache).manifest
    column = manifest.columns[2]
    parts = (replace(column.parts[1], file=column.parts[0].file, start=0, stop=8), *column.parts[1:])
    shutil.copy(cache / column.parts[1].file, cache / column.parts[0].file)
    save_manifest(cache, manifest.with_column(replace(column, parts=parts)))
    (damage,) = Cache(cache).verify()
    assert damage.reason == f"it is rows 8 to 16 of '{column.folder}', moved or renamed"


@given(begin=st.binary(max_size=BYTES) | st.text().map(str.encode))
def test_whatever_a_file_begins_with_is_told(begin: bytes) -> None:
    assert IDENTITY.differs(begin)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"img2prompt-cache": 3}, "a part of schema 3"),
        ({"column": "features/timm-b"}, "rows 8 to 16 of 'features/timm-b'"),
        ({"rows": [8, 17]}, "rows 8 to 17"),
        ({"rows": 8}, "does not begin as a part"),
        ({"rows": ["8", "16"]}, "rows '8' to '16'"),
        ({"cache": "x"}, "another cache"),
        ({"cache": None}, "another cache"),
        ({"fingerprint": []}, "its fingerprint differs"),
        ({"column": KeyError}, "does not begin as a part"),
    ],
)
def test_any_change_of_what_it_says_is_told(change: dict[str, object], why: str) -> None:
    said = json.loads(IDENTITY.block()) | change
    said = {key: value for key, value in said.items() if value is not KeyError}
    assert why in IDENTITY.differs(json.dumps(said).encode().ljust(BYTES))
    assert IDENTITY.differs(IDENTITY.block()) == ""
    assert IDENTITY.differs(b"[" * BYTES) == "it does not begin as a part does"


def test_only_a_part_of_schema_1_need_not_say_what_it_is(tmp_path: Path) -> None:
    with PartFile(tmp_path / "a.h5") as part:
        part.write_text("prompt", ["boat"])
        part.commit()
    old = replace(IDENTITY, schema=1)
    assert read_text(tmp_path / "a.h5", ["prompt"], 1, old) == {"prompt": ["boat"]}
    with pytest.raises(Img2PromptError, match="does not say which part it is"):
        read_text(tmp_path / "a.h5", ["prompt"], 1, IDENTITY)
    with PartFile(tmp_path / "b.h5", IDENTITY) as part:
        part.write_text("prompt", ["boat"])
        part.commit()
    for identity in (old, IDENTITY):
        assert read_text(tmp_path / "b.h5", ["prompt"], 1, identity) == {"prompt": ["boat"]}
    with pytest.raises(Img2PromptError, match="rows 8 to 16"):
        read_text(tmp_path / "b.h5", ["prompt"], 1, replace(old, start=0))


def make_old(tiny: Tiny, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a cache as version 0.1 did."""
    with monkeypatch.context() as patch:
        patch.setattr(Worker.compute, "__defaults__", (1,))
        patch.setattr(TargetWorker.compute, "__defaults__", (1, ()))
        tiny.extract(source, folder)
    data = json.loads((folder / "cache.json").read_text())
    data["schema"] = 1
    for column in data["columns"]:
        del column["cache"]
        for part in column["parts"]:
            del part["schema"], part["joins"]
    (folder / "cache.json").write_text(json.dumps(data))


def test_a_cache_of_schema_1_is_read_extended_and_repaired(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = make_source(tmp_path / "images", 12), tmp_path / "cache"
    make_old(tiny, source, folder, monkeypatch)
    assert Cache(folder).verify() == []
    old = parts_of(folder)
    assert all(data.startswith(b"\x89HDF") for data in old.values())
    values = Cache(folder).values(Cache(folder).manifest.columns[1])
    more = make_source(tmp_path / "more", 3, first=12)
    for path in more.glob("*.png"):
        path.rename(source / path.name)
    tiny.extract(source, folder)  # what was cached stays as it was
    parts = [part for column in Cache(folder).manifest.columns for part in column.parts]
    assert sorted(part.schema for part in parts) == [1] * 6 + [2] * 3
    now = parts_of(folder)
    assert {name: now[name] for name in old} == old
    np.testing.assert_array_equal(Cache(folder).values(Cache(folder).manifest.columns[1])[:12], values)
    assert json.loads((folder / "cache.json").read_text())["schema"] == 2
    assert refused(folder) == []
    for name in now:
        (folder / name).unlink()
    assert repair(folder).left == ()
    assert parts_of(folder) == now


def test_columns_of_different_caches_are_no_cache(cache: Path) -> None:
    manifest = Cache(cache).manifest
    columns = [replace(column, cache=f"{number}") for number, column in enumerate(manifest.columns)]
    save_manifest(cache, replace(manifest, columns=tuple(columns)))
    with pytest.raises(Img2PromptError, match="columns of different caches"):
        load_manifest(cache)


def test_a_new_column_belongs_to_the_cache() -> None:
    rows = Column("rows", "", "rows", (), "text", {})
    manifest = Manifest(8, 4, (rows,)).identified("a" * 32).identified("b" * 32)
    manifest = manifest.with_column(Column("features", "timm:a", "features/timm-a", (2,), "float16", {}))
    assert {column.cache for column in manifest.columns} == {"a" * 32}
