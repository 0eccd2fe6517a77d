"""Exploring sources before extraction, and caches without their runs."""

from __future__ import annotations

import json
import shutil

import pytest

import img2prompt_cache as ipc
from img2prompt_cache.errors import UsageError
from img2prompt_cache.reporting import material as materials
from img2prompt_cache.reporting.checks.registry import CHECKS
from img2prompt_cache.reporting.page import Page
from img2prompt_cache.reporting.report import plain
from img2prompt_cache.sources import open_source
from kit import paint, write_prompts
from synthetic import Cli
from webpages import check_page


@pytest.fixture
def cli(capsys):
    return Cli(capsys)


def findings(made):
    return {each.number: each.severity for each in made.sections["checks"].checks if each.findings}


def test_a_source_tells_what_its_cache_tells(pairs, made):
    of_source, of_cache = ipc.explore(pairs), ipc.explore(made)
    one, other = (plain(found.sections["data"]) for found in (of_source, of_cache))
    for name in ("counts", "images", "gallery"):
        assert one[name] == other[name], name
    for name in ("total", "distinct", "frequent", "lengths"):
        assert one["prompts"][name] == other["prompts"][name], name
    assert one["duplicated"]["identical_images"] == other["duplicated"]["identical_images"] == 2
    assert sum(one["reasons"].values()) == 3
    assert findings(of_source)["R01"] == findings(of_cache)["R01"] == "problem"
    assert "map" in of_cache.sections
    assert "map" not in of_source.sections
    assert of_source.title == "images"
    json.dumps(of_source.to_dict(), allow_nan=False)


def test_only_checks_that_need_no_run_are_carried_out(pairs, fitted):
    numbers = {check.number for check in CHECKS if not check.of_runs}
    for found in (ipc.explore(pairs), ipc.explore(fitted)):
        checks = found.sections["checks"].checks
        assert {each.number for each in checks} == numbers
        assert not [each for each in checks if "run" in each.not_checked.split()]
        assert not {"heads", "cases"} & {*found.sections}


def test_what_needs_a_cache_is_not_checked_in_a_source(pairs):
    found = ipc.explore(pairs).sections["checks"].checks
    missing = {each.number for each in found if each.not_checked == "nothing is extracted yet"}
    assert missing == {"R02", "R09", "R10", "R11", "R12"}


def test_damage_inside_an_image_is_found_where_it_is_decoded(tmp_path, monkeypatch):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(6):
        paint(images / f"{number}.png", number)
    data = bytearray((images / "3.png").read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (images / "3.png").write_bytes(data)
    write_prompts(images, {str(number): f"a boat {number}" for number in range(6)})
    found = ipc.explore(images)
    assert found.sections["data"].counts["failed"] == 1
    assert found.sections["data"].images.measured == 5
    monkeypatch.setattr(materials, "MOST_DECODED", 2)
    assert ipc.explore(images).sections["data"].images.measured <= 2


def test_images_without_any_prompt_are_explored_too(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    paint(images / "a.png", 0)
    found = ipc.explore(images)
    assert found.sections["data"].counts["without_prompt"] == 1
    assert found.sections["data"].prompts is None
    assert findings(found)["R04"] == "caution"
    (finding,) = next(each for each in found.sections["checks"].checks if each.number == "R04").findings
    assert "names a table" in finding.advice, "nothing can be predicted before a cache is made"
    assert not found.failed


def test_what_the_listing_leaves_out_is_noted(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    paint(images / "a.png", 0)
    write_prompts(images, {"a": "a boat", "b": "an image that is not there"})
    notes = ipc.explore(images).sections["data"].notes
    assert "prompts without an image: 1" in notes


def test_tokens_are_counted_where_the_tokenizer_and_its_limit_are_on_this_machine(
    pairs, tiny, tmp_path, monkeypatch
):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny.encoder.removeprefix("st:local-dir:"), folder)
    monkeypatch.setattr(materials, "ENCODER", f"st:local-dir:{folder}")
    config = folder / "sentence_bert_config.json"
    for content, limit in (('{"max_seq_length": 5}', 5), ("{}", None), ("[", None), ("[]", None)):
        config.write_text(content)
        prompts = ipc.explore(pairs).sections["data"].prompts
        assert prompts.limit == limit
        assert (prompts.tokens is None) == (limit is None)
        assert (prompts.cut or 0) == (19 if limit else 0)  # three are one word
    shutil.rmtree(folder)
    assert ipc.explore(pairs).sections["data"].prompts.tokens is None


def test_a_page_of_a_source_is_well_formed(pairs, tmp_path):
    for name in ("html5lib", "matplotlib", "wordcloud"):
        pytest.importorskip(name)
    out = tmp_path / "x.html"
    ipc.explore(open_source(pairs), out=out)
    tree = check_page(out.read_text(encoding="utf-8"))
    assert [each for each in tree.iter("img") if each.get("src", "").startswith("data:image/webp")]


def test_a_page_names_only_commands_that_show_more(pairs, made, cli, tmp_path):
    for name in ("html5lib", "matplotlib", "wordcloud"):
        pytest.importorskip(name)
    for found, advice in ((ipc.explore(pairs), False), (ipc.explore(made), True)):
        text = found.html(Page(found.material.pictures, most_bytes=0))
        check_page(text)
        assert "pictures are left out to keep this file small" in text
        assert ("<code>img2prompt-cache report --folder</code> shows all" in text) == advice
        assert text.count("--folder") == advice, "explore itself has no such option"
    said = cli("explore", pairs, "--out", tmp_path)
    assert said.code == 2
    assert "name a file, or have a folder written by `img2prompt-cache report --folder`" in said.err


def test_wrong_use_is_told(pairs, made, tmp_path):
    with pytest.raises(UsageError, match="not there"):
        ipc.explore(tmp_path / "not there")
    with pytest.raises(UsageError, match="named by its path"):
        ipc.explore(ipc.Cache(made), format="table")
    (tmp_path / "prompts.csv").write_text("imgId,prompt\n")
    with pytest.raises(UsageError, match=r"`prompts`.* go with a source"):
        ipc.explore(made, prompts=tmp_path / "prompts.csv")
    (tmp_path / "x.html").write_text("mine")
    with pytest.raises(UsageError, match="was not made by"):
        ipc.explore(pairs, out=tmp_path / "x.html", overwrite=True)


def test_the_command_shows_counts_and_findings_and_its_exit_code(cli, pairs, tmp_path, monkeypatch):
    said = cli("explore", pairs)
    assert said.code == 0, said.err
    assert "images: 23 rows, 20 ok, 3 failed" in said.out
    assert "problem R01: 3 images of 23 could not be read" in said.out
    assert cli("explore", pairs, "--strict").code == 1
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        shutil.copy(pairs / f"img00{number}.png", images)
    write_prompts(images, {f"img00{number}": f"a boat {number}" for number in range(3)})
    monkeypatch.chdir(tmp_path)
    said = cli("explore", "--strict", "--json")
    assert said.code == 0, said.out
    assert said.json["data"]["counts"]["ok"] == 3
    assert said.json["out"] is None
