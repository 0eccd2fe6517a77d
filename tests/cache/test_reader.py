"""A cache opened for reading, against plain h5py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.cache.damage import Damage
from img2prompt_cache.cache.manifest import ROW_COLUMNS
from img2prompt_cache.cache.reader import FAILED, OK, Cache
from img2prompt_cache.cache.writer import commit, writing
from img2prompt_cache.errors import Img2PromptError, UsageError
from kit import Tiny, prompt_of


def flip(path: Path, offset: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_rows_are_those_of_the_source(made: Path) -> None:
    cache = Cache(made)
    text = cache.text(*ROW_COLUMNS)
    assert cache.rows == 23
    assert text["imgId"][:20] == [f"img{n:03d}" for n in range(19)] + ["empty"]
    assert text["prompt"][:19] == [prompt_of(n) for n in range(19)]
    assert (text["imgId"][22], text["prompt"][22]) == ("img019", "")
    assert text["uri"][0] == "img000.png"
    bad = {i for i, status in enumerate(text["status"]) if status == FAILED}
    assert [text["imgId"][i] for i in sorted(bad)] == ["empty", "words", "cut"]
    assert all(bool(reason) == (i in bad) for i, reason in enumerate(text["reason"]))
    assert set(text["status"]) == {OK, FAILED}
    assert text["sha256"][3] == text["sha256"][17] != text["sha256"][4]
    with pytest.raises(UsageError, match="unknown column 'promt'; did you mean prompt"):
        cache.text("promt")


def test_a_path_may_be_text(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(str(made))
    assert cache.folder == made
    assert cache.text("prompt") == Cache(made).text("prompt")
    monkeypatch.chdir(made.parent)
    assert Cache(made.name).verify() == []


def test_it_shows_itself_in_a_line_and_as_a_table(made: Path, tiny: Tiny) -> None:
    cache = Cache(made)
    assert repr(cache) == f"Cache({str(made)!r}, 23 rows, 3 columns)"
    features = cache.column("features", tiny.cnn)
    assert cache.columns[1] == {
        "name": tiny.cnn,
        "kind": "features",
        "shape": [23, *features.shape],
        "dtype": "float16",
        "bytes": sum((made / part.file).stat().st_size for part in features.parts),
    }
    shown = cache._repr_html_()
    assert shown.count("<tr>") == 1 + 3
    assert f"<td>{tiny.cnn}</td><td>features</td><td>[23, {features.shape[0]}]</td>" in shown


def test_what_it_shows_is_escaped(cache: Path) -> None:
    data = json.loads((cache / "cache.json").read_text())
    data["columns"][1].update(spec="timm:<b>&", folder="features/timm-b")
    for part in data["columns"][1]["parts"]:
        part["file"] = f"features/timm-b/{part['file'].rpartition('/')[2]}"
    (cache / "cache.json").write_text(json.dumps(data))
    renamed = cache.rename(cache.with_name("<script>"))
    shown = Cache(renamed)._repr_html_()
    assert "timm:&lt;b&gt;&amp;" in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert "<b>" not in shown


def plain(made: Path, kind: str) -> np.ndarray:
    parts = sorted(made.glob(f"{kind}/*/*.h5"))
    assert len(parts) == 3
    return np.concatenate([h5py.File(path)["values"][()] for path in parts])


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, 22), max_size=60), kind=st.sampled_from(["features", "targets"]))
def test_any_rows_in_any_order_are_what_h5py_reads(made: Path, rows: list[int], kind: str) -> None:
    cache = Cache(made)
    (column,) = cache.manifest.of_kind(kind)
    values = cache.values(column, np.array(rows, np.int64))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, plain(made, kind)[rows].astype(np.float32))


def test_a_whole_column_is_what_h5py_reads(made: Path, tiny: Tiny) -> None:
    cache = Cache(made)
    column = cache.column("features", tiny.cnn)
    assert (column.dtype, column.rows) == ("float16", 23)
    np.testing.assert_array_equal(cache.values(column), plain(made, "features"))
    np.testing.assert_array_equal(np.isnan(cache.values(column)).all(1), np.isin(np.arange(23), [19, 20, 21]))
    assert cache.missing([column]) == set()


def test_a_column_that_is_not_there_or_not_whole_is_refused(cache: Path, tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="unknown features column 'timm:cnn'; did you mean timm:local-dir"):
        Cache(cache).column("features", "timm:cnn")
    with pytest.raises(UsageError, match=r"has no trunk column; `extract\(\)` adds one"):
        Cache(cache).column("trunk", tiny.cnn)
    told = r"^process \d+ on .* is writing this cache: if it adds timm:cnn, wait for it to end; unknown"
    with writing(cache), pytest.raises(UsageError, match=told):
        Cache(cache).column("features", "timm:cnn")
    data = json.loads((cache / "cache.json").read_text())
    del data["columns"][1]["parts"][2]
    (cache / "cache.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"cached for 16 of 23 rows; run .* to finish it"):
        Cache(cache).column("features", tiny.cnn)
    told = r"16 of 23 rows; process \d+ on .* since .* is writing this cache: wait for it to end"
    with writing(cache), pytest.raises(UsageError, match=told):
        Cache(cache).column("features", tiny.cnn)


def test_parts_that_a_writer_replaces_meanwhile_are_no_damage(cache: Path) -> None:
    opened = Cache(cache)
    rows = opened.manifest.columns[0]
    old = rows.parts[1]
    new = replace(old, file="rows/00001-r1.h5")
    shutil.copy(cache / old.file, cache / new.file)
    commit(cache, opened.manifest, [(rows, new)])
    assert not (cache / old.file).exists()
    assert opened.verify() == []
    with pytest.raises(
        Img2PromptError, match=r"was changed by another process while it was read: rows/00001\.h5"
    ):
        opened.require_undamaged([rows])
    (cache / new.file).write_bytes(b"x")
    assert [damage.file for damage in opened.verify()] == ["rows/00001-r1.h5"]


def test_a_whole_cache_has_no_damage(made: Path) -> None:
    cache = Cache(made)
    assert cache.verify() == []
    cache.require_undamaged(list(cache.manifest.columns))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "its bytes have changed"),
        (cut, "bytes instead of"),
        (Path.unlink, "it is missing"),
        (link, "it is not a plain file"),
        (folder, "it is not a plain file"),
    ],
)
@pytest.mark.parametrize("kind", ["rows", "features", "targets"])
def test_damage_is_found_and_never_read(
    damage: Callable[[Path], None], reason: str, kind: str, cache: Path, tiny: Tiny
) -> None:
    opened = Cache(cache)
    column = opened.manifest.of_kind(kind)[0]
    part = column.parts[1]
    damage(cache / part.file)
    (found,) = opened.verify()
    assert found == Damage(part.file, found.reason)
    assert reason in found.reason
    with pytest.raises(Img2PromptError, match=r"00001\.h5 is damaged"):
        opened.require_undamaged(list(opened.manifest.columns))
    opened.require_undamaged([c for c in opened.manifest.columns if c is not column])


def test_every_bit_of_a_part_counts(cache: Path) -> None:
    opened = Cache(cache)
    path = cache / opened.manifest.columns[2].parts[0].file
    whole = path.read_bytes()
    for offset in range(0, len(whole), len(whole) // 25):
        flip(path, offset)
        assert [damage.reason for damage in opened.verify()] == ["its bytes have changed"]
        path.write_bytes(whole)
    assert opened.verify() == []


def test_a_manifest_that_lies_about_a_part_is_told(cache: Path, tiny: Tiny) -> None:
    data = json.loads((cache / "cache.json").read_text())
    data["columns"][1]["shape"] = [data["columns"][1]["shape"][0] - 1]
    (cache / "cache.json").write_text(json.dumps(data))
    opened = Cache(cache)
    with pytest.raises(Img2PromptError, match="the manifest says float16"):
        opened.values(opened.column("features", tiny.cnn))
