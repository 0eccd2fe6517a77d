"""What a source holds and what a pass would do, told without loading a model."""

from __future__ import annotations

import csv
import doctest
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from img2prompt_cache import look
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.specs import PRESETS
from kit import Tiny, make_source, paint, write_prompts


def test_it_counts_what_the_source_holds(tiny: Tiny, pairs: Path, tmp_path: Path) -> None:
    found = look(pairs, tmp_path / "cache", backbones=tiny.cnn, encoder=tiny.encoder)
    assert (found.source, found.format, found.why) == (
        str(pairs),
        "table",
        "prompts.csv is a table of prompts",
    )
    assert (found.pairs, found.without_prompt, found.without_image) == (22, 1, 0)
    assert found.unreadable == {"empty": 1, "not an image": 1, "truncated": 1}
    assert found.same_image == 2
    assert found.same_prompt == 22 - len({one["prompt"] for one in listed(pairs)})
    assert found.readers == {"table": 22}
    assert list(tmp_path.iterdir()) == []


def listed(pairs: Path) -> list[dict[str, str]]:
    with (pairs / "prompts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_first_pairs_and_the_columns_are_those_that_the_pass_stores(
    tiny: Tiny, pairs: Path, tuned: Path, tmp_path: Path
) -> None:
    options = {"backbones": [tiny.vit, tiny.cnn], "encoder": tiny.encoder}
    found = look(pairs, tmp_path / "cache", trunk=2, views=2, **options)  # type: ignore[arg-type]
    cache = Cache(tuned)
    stored = cache.text("imgId", "uri", "prompt")
    assert len(found.first) == 10
    for number, one in enumerate(found.first):
        kept = {name: stored[name][number] for name in stored}
        assert one == {**kept, "found_in": "table"}
    assert {*found.plan.columns} >= {
        c.folder
        for c in cache.manifest.columns
        if "cnn" not in c.folder and "int8" not in c.spec and "k1" not in c.spec
    }
    assert (found.plan.rows, found.plan.fresh, found.plan.work) == (23, 23, 23)
    assert {*found.unmeasured} == {*found.plan.columns} - {"rows"}
    assert "rows\n" in str(found)
    assert f"{found.unmeasured[0]} *" in str(found)


def test_a_cache_that_is_there_is_compared(tiny: Tiny, tmp_path: Path) -> None:
    source, folder = make_source(tmp_path / "images", 6), tmp_path / "cache"
    tiny.extract(source, folder)
    assert "nothing to do: 6 rows are cached" in str(look(source, folder))
    paint(source / "new.png", 50)
    prompts = {f"img{n:03d}": f"another one {n}" for n in range(6)}
    write_prompts(source, {**prompts, "new": "a new one"})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = look(source, folder)
    assert (found.plan.rows, found.plan.fresh, found.plan.work, found.unmeasured) == (7, 1, 1, ())
    assert found.plan.bytes > 0
    assert any("6 prompts differ from the cached ones" in note for note in found.notes)
    assert len(found.plan.changes.prompts) == 6
    assert any(
        "6 prompts differ" in note and "would be taken over" in note
        for note in look(source, folder, update=True).notes
    )
    again = look(None, folder)
    assert again.why == "it was cached as that before"
    assert replace(again, why=found.why) == found
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    tiny.extract(source, folder)
    assert Cache(folder).rows == 7


def test_a_further_backbone_costs_every_row(tiny: Tiny, pairs: Path, made: Path) -> None:
    found = look(pairs, made, backbones=tiny.vit)
    assert (found.plan.fresh, found.plan.work) == (0, 23)
    assert found.plan.columns == found.unmeasured
    assert found.plan.bytes == 0


def test_the_reader_of_each_prompt_is_told(tiny: Tiny, tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        paint(tmp_path / f"{name}.png", number)
    (tmp_path / "a.txt").write_text("a tram")
    (tmp_path / "b.json").write_text('{"prompt": "a quay"}')
    found = look(tmp_path, tmp_path / "cache", backbones=tiny.cnn, encoder=tiny.encoder)
    assert found.readers == {"text": 1, "json": 1}
    assert [one["found_in"] for one in found.first] == ["text", "json"]
    assert found.why == "a.txt states the prompt of a.png"
    assert look(
        tmp_path, tmp_path / "cache", format="folder", backbones=tiny.cnn, encoder=tiny.encoder
    ).why == ("asked for")


def test_images_without_prompts_are_refused_as_by_the_pass(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 1)
    with pytest.raises(Img2PromptError, match="the one image"):
        look(tmp_path, tmp_path / "cache", preset="packaged")
    with pytest.raises(UsageError):
        look(tmp_path, tmp_path / "cache", preset="none")


def test_no_model_is_loaded(tmp_path: Path) -> None:
    source = make_source(tmp_path / "images", 3)
    code = (
        "import sys, img2prompt_cache as ipc\n"
        f"found = ipc.look({str(source)!r}, {str(tmp_path / 'cache')!r}, preset='packaged', levels='multi')\n"
        "print(found.pairs, 'torch' in sys.modules, 'timm' in sys.modules, 'transformers' in sys.modules)"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert told.split() == ["3", "False", "False", "False"]


def test_a_bidirectional_control_cannot_reorder_what_is_printed(tiny: Tiny, tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 1)
    (tmp_path / "a.txt").write_text("tram \u202egnp.exe\x1b[31m" + "x" * 1000)
    text = str(look(tmp_path, tmp_path / "cache", backbones=tiny.cnn, encoder=tiny.encoder))
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert max(map(len, text.split("\n"))) < 400


def test_the_example_of_the_docstring_runs(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(tmp_path / "images", 6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "packaged", ((tiny.cnn,), tiny.encoder))
    example = doctest.DocTestParser().get_doctest(look.__doc__ or "", {}, "look", None, None)
    assert len(example.examples) > 2
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
    assert (
        repr(look("images", preset="packaged"))
        == f"Look({str(tmp_path / 'images')!r}: table, 6 pairs, 6 new)"
    )


def test_formats_that_pillow_does_not_read_are_listed_and_named(tiny: Tiny, tmp_path: Path) -> None:
    source = make_source(tmp_path / "images", 2)
    (source / "a.jxl").write_bytes(b"\xff\x0a\x00")
    (source / "b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    found = look(source, tmp_path / "cache", backbones=tiny.cnn, encoder=tiny.encoder)
    assert found.unreadable == {
        "JPEG XL is not read by Pillow; convert it, for instance to PNG": 1,
        "HEIC is not read by Pillow; convert it, for instance to JPEG": 1,
    }
    report = tiny.extract(source, tmp_path / "cache")
    assert report.reasons == found.unreadable
