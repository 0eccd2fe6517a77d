"""The manifest: what it keeps, and what it refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.cache.manifest import SCHEMA, Block, column_folder, part_file
from img2prompt_cache.cache.manifest_file import NAME, load_manifest, save_manifest
from img2prompt_cache.errors import Img2PromptError, UsageError
from manifests import MANIFEST, SHA


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    save_manifest(tmp_path, MANIFEST)
    assert load_manifest(tmp_path) == MANIFEST
    text = (tmp_path / NAME).read_text("utf-8")
    data = json.loads(text)
    assert (data["schema"], data["rows"]) == (SCHEMA, 24)
    assert data["columns"][1]["parts"][1] == {
        "file": "features/timm-resnet50.a1_in1k/00001.h5",
        "start": 8,
        "stop": 16,
        "bytes": 10_000,
        "sha256": SHA,
        "missing": [9],
        "source": 0,
        "retried": [],
        "schema": 1,
        "joins": [],
        "replaced": [],
    }
    save_manifest(tmp_path, MANIFEST)
    assert (tmp_path / NAME).read_text("utf-8") == text
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]


def test_blocks_are_listed_where_a_column_has_any(tmp_path: Path) -> None:
    save_manifest(tmp_path, MANIFEST)
    listed = [column.get("blocks") for column in json.loads((tmp_path / NAME).read_text())["columns"]]
    blocks = [
        {"name": "layer4 mean+max", "width": 20, "standardise": True},
        {"name": "names", "width": 12, "standardise": False},
    ]
    assert listed == [None, blocks, *[None] * (len(listed) - 2)]
    data = damaged(("columns", 1, "blocks", 0), {"name": "layer4 mean+max", "width": 20})
    (tmp_path / NAME).write_text(json.dumps(data))
    assert load_manifest(tmp_path).columns[1].blocks[0] == Block("layer4 mean+max", 20)


def test_no_cache_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(UsageError, match=r"no cache in .*make one with `extract\(\)`"):
            load_manifest(folder)


def refused(folder: Path, data: object) -> str:
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / NAME).write_text(text, "utf-8")
    with pytest.raises(Img2PromptError) as caught:
        load_manifest(folder)
    assert not isinstance(caught.value, UsageError)
    return str(caught.value)


def test_a_newer_schema_asks_for_an_upgrade(tmp_path: Path) -> None:
    assert "reads up to 2. Upgrade" in refused(tmp_path, {"schema": SCHEMA + 1, "anything": "new"})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", "{}", '{"schema": 0}', '{"schema": "1"}', "[" * 100_000, "9" * 9999]
)
def test_what_is_no_manifest_is_refused(text: str, tmp_path: Path) -> None:
    assert "is not a manifest" in refused(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(Img2PromptError, match="cannot be read"):
        load_manifest(tmp_path)


def saved() -> Any:
    return json.loads(json.dumps({"rows": MANIFEST.rows, **asdict(MANIFEST)}))


def damaged(path: tuple[Any, ...], value: object) -> Any:
    data = saved()
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


FIRST = ("columns", 1, "parts", 0)
HOSTILE = [
    *[
        ((*FIRST, "file"), file)
        for file in ("/etc/passwd", "../00000.h5", "features/../rows/00000.h5", "rows/00000.h5", "", None, 7)
    ],
    *[
        (("columns", 2, "folder"), folder)
        for folder in ("..", "/tmp", "features/..", "runs/x", "rows", "features/timm-resnet50.a1_in1k")
    ],
    (("columns", 1, "spec"), ".."),
    (("columns", 1, "spec"), 7),
    (("columns", 0, "spec"), "timm:x"),
    ((*FIRST, "start"), 1),
    ((*FIRST, "stop"), 9),
    ((*FIRST, "stop"), 8.0),
    ((*FIRST, "stop"), True),
    ((*FIRST, "stop"), 0),
    ((*FIRST, "bytes"), -1),
    ((*FIRST, "bytes"), 511),
    ((*FIRST, "bytes"), 1 << 80),
    ((*FIRST, "sha256"), SHA[:-1]),
    ((*FIRST, "sha256"), SHA.upper()),
    ((*FIRST, "sha256"), None),
    ((*FIRST, "missing"), [8]),
    ((*FIRST, "missing"), ["1"]),
    ((*FIRST, "missing"), 1),
    (("columns", 0, "parts", 0, "source"), 1),
    (("columns", 0, "parts", 0, "source"), -1),
    (("columns", 0, "parts", 1, "start"), 7),
    (("columns", 0, "parts", 2, "stop"), 25),
    (("columns", 0, "kind"), "features"),
    (("columns", 0, "shape"), [4]),
    (("columns", 1, "kind"), "rows"),
    (("columns", 1, "kind"), "runs"),
    (("columns", 1, "kind"), ["features"]),
    (("columns", 1, "shape"), []),
    (("columns", 1, "shape"), [0]),
    (("columns", 1, "shape"), [-1]),
    (("columns", 1, "shape"), [1 << 24]),
    (("columns", 1, "shape"), [1 << 23] * 9),
    (("columns", 1, "shape"), "32"),
    (("columns", 1, "dtype"), "object"),
    (("columns", 1, "dtype"), "text"),
    (("columns", 1, "dtype"), ["float16"]),
    (("columns", 1, "fingerprint"), {"weights": 1}),
    (("columns", 1, "fingerprint"), None),
    (("columns", 1, "parts"), None),
    (("columns", 1, "blocks"), None),
    (("columns", 1, "blocks"), [{"name": "all", "width": 33}]),
    (("columns", 1, "blocks"), [{"name": "all", "width": "32"}]),
    (("columns", 1, "blocks"), [{"name": 7, "width": 32}]),
    (("columns", 1, "blocks"), [{"name": "all", "width": 32, "standardise": 1}]),
    (("columns", 1, "blocks"), [{"name": "more", "width": 40}, {"name": "less", "width": -8}]),
    (("columns", 1, "blocks"), [32]),
    (("columns", 2, "blocks"), [{"name": "all", "width": 32}]),
    (("columns",), []),
    (("columns",), None),
    (("rows",), 23),
    (("rows",), "24"),
    (("part_rows",), 0),
    (("columns", 0, "parts", 0, "stop"), (1 << 24) + 1),
    (("part_rows",), 1 << 60),
    (("batch_size",), 0),
    (("batch_size",), None),
    (("sources",), []),
    (("sources",), [{"root": 1}]),
    (("sources",), 3),
    (("preset",), "packaged"),
    (("extra",), ["../x"]),
    (("extra",), [1]),
    (("extra",), 1),
]


@pytest.mark.parametrize(("path", "value"), HOSTILE, ids=str)
def test_a_hostile_manifest_is_refused(path: tuple[Any, ...], value: object, tmp_path: Path) -> None:
    assert "is damaged" in refused(tmp_path, damaged(path, value))


def test_the_manifest_that_hostile_ones_are_made_of_is_good(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps(saved()))
    assert load_manifest(tmp_path) == MANIFEST


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([SHA, "..", "rows"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_is_refused_or_harmless(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "changed-manifest"
    folder.mkdir(exist_ok=True)
    manifest = saved()
    for path in data.draw(st.lists(st.sampled_from(list(places(manifest))), min_size=1, max_size=3)):
        at = manifest
        try:
            for key in path[:-1]:
                at = at[key]
            old = at[path[-1]]
            if data.draw(st.booleans()):
                at[path[-1]] = data.draw(JSON)
            elif isinstance(at, list):
                at.insert(path[-1], copy.deepcopy(old))
            else:
                del at[path[-1]]
        except (LookupError, TypeError):  # an earlier change took this place away
            continue
    (folder / NAME).write_text(json.dumps(manifest))
    try:
        loaded = load_manifest(folder)
    except Img2PromptError:
        return
    for item in loaded.columns:
        assert [part.file for part in item.parts] == [
            part_file(column_folder(item.kind, item.spec), n) for n in range(len(item.parts))
        ]
        assert [part.start for part in item.parts] == [0, *[part.stop for part in item.parts]][:-1]
        assert item.rows <= loaded.rows
