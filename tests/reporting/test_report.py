"""The report of caches: whole pages, well-formed, self-contained, and safe whatever stands in a prompt."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import img2prompt_cache as ipc
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import ImageError, Img2PromptError, UsageError
from img2prompt_cache.progress import ignore
from img2prompt_cache.reporting.material import Material
from img2prompt_cache.reporting.pictures import Pictures
from img2prompt_cache.reporting.report import gather, report
from img2prompt_cache.reporting.rows import Rows
from kit import Tiny, paint, write_prompts
from webpages import check_page

pytest.importorskip("html5lib")
pytest.importorskip("matplotlib")
pytest.importorskip("wordcloud")

HOSTILE = {
    "script": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "quote": '" onmouseover="alert(3)" \' x=\' {{ 7 * 7 }} {% raw %}',
    "rtl": "fox \u202egnp.exe\u202c ثعلب",
    "ansi": "\x1b[31mred\x1b]0;title\x07 fox",
    "long": "fox, 8k, " * 120_000,
    "lines": "one\ntwo\r\u2028three </style></title></textarea><!--",
    "link": "see https://example.org/x.png and //example.org/y",
}


@pytest.fixture(scope="module")
def hostile(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    images = folder / "images"
    images.mkdir()
    for number, name in enumerate(HOSTILE):
        paint(images / f"{name}.png", number)
    (images / "bomb.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    write_prompts(images, {**HOSTILE, "bomb": "a bomb"})
    tiny.extract(images, folder / "cache")
    return folder / "cache"


@pytest.fixture(scope="module")
def made_report(made: Path) -> Any:
    return report(made)


def test_a_page_is_well_formed_and_self_contained(made_report):
    tree = check_page(made_report.html())
    assert len([each for each in tree.iter("img") if each.get("src", "").startswith("data:image/webp")]) > 10


def test_its_data_are_those_of_the_cache(made_report, made):
    data = made_report.to_dict()["data"]
    assert data["counts"] == {"rows": 23, "ok": 20, "failed": 3, "removed": 0, "without_prompt": 1}
    assert sum(data["reasons"].values()) == 3
    assert data["images"]["measured"] == 20
    assert data["images"]["formats"] == {"PNG": 20}
    assert data["prompts"]["total"] == 22
    assert data["prompts"]["limit"] == 32
    assert sum(data["prompts"]["tokens"]["counts"]) == 22
    assert data["duplicated"]["identical_images"] == 2
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_hostile_text_is_shown_as_text(hostile):
    text = report(hostile).html()
    tree = check_page(text)
    assert len(list(tree.iter("script"))) == 1
    assert len(text) < 2_000_000
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\u2028" not in text
    shown = unescape(text)
    assert "<script>alert(1)</script>" in shown
    assert "{{ 7 * 7 }}" in shown
    assert "ثعلب" in shown
    assert "\\u202e" in shown
    assert "format SVG is not allowed" in shown


def test_text_that_no_file_can_hold_is_shown_all_the_same():
    bad = ["\ud800 <b>fox\x00", "\udfff" * 5000, "</script><script>alert(1)</script>"]
    rows = Rows(bad, bad, ["ok", "failed", "ok"], bad, [""] * 3, ["a1111", bad[0], bad[2]], _no_image)
    made = gather(Material(rows, Pictures(rows)), ignore)
    text = made.html()
    text.encode()
    tree = check_page(text)
    assert len(list(tree.iter("script"))) == 1
    assert "\\ud800 &lt;b&gt;fox\\x00" in text
    json.dumps(made.to_dict())


def _no_image(row: int) -> bytes:
    raise ImageError("<script>gone</script>")


def test_a_cache_whose_images_are_gone_has_a_page_without_pictures_that_says_so(tiny, pairs, tmp_path):
    images = shutil.copytree(pairs, tmp_path / "images")
    tiny.extract(images, tmp_path / "cache")
    shutil.rmtree(images)
    found = report(tmp_path / "cache")
    text = found.html()
    check_page(text)
    assert "data:image/webp" not in text
    assert "no picture" in text
    assert found.sections["data"].images.measured == 0


def test_the_same_cache_gives_the_same_page(made):
    one, other = (re.sub(r"20\d\d-[\dT: +-]*", "", report(made).html()) for _ in range(2))
    assert one == other


def test_a_page_is_kept_small_and_says_what_is_left_out(made_report):
    from img2prompt_cache.reporting.page import Page

    page = Page(made_report.material.pictures, most_bytes=3000)
    text = made_report.html(page)
    check_page(text)
    assert page.bytes <= 3000
    assert page.left_out > 0
    assert "pictures are left out to keep this file small" in text


def test_a_notebook_shows_it_in_a_frame(made_report):
    shown = made_report._repr_html_()
    assert shown.startswith("<iframe sandbox=")
    assert shown.count("<") == 2, "the page is escaped"
    assert "data" in repr(made_report)


def test_the_front_door_makes_and_writes_it(made, tmp_path):
    out = tmp_path / "x.html"
    found = ipc.report(Cache(made), out=out)
    assert isinstance(found, ipc.Report)
    check_page(out.read_text(encoding="utf-8"))
    with pytest.raises(UsageError, match="overwrite=True"):
        ipc.report(made, out=out)
    ipc.report(made, out=out, overwrite=True)


def test_a_folder_has_every_row_and_its_pictures_as_files(made, tmp_path):
    out = tmp_path / "report"
    found = report(made, out=out, folder=True)
    text = (out / "index.html").read_text(encoding="utf-8")
    tree = check_page(text)
    linked = {each.get("src") for each in tree.iter("img") if not each.get("src").startswith("data:")}
    assert linked == {f"images/{path.name}" for path in (out / "images").iterdir()}
    assert len(linked) == 20
    report(made, out=out, folder=True, overwrite=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not made by"):
        found.save_folder(out, overwrite=True)
    assert (out / "mine.txt").exists()


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("x.txt", False, "extension must be .html"),
        ("there", False, "extension"),
        ("there.html", False, "is a folder"),
        ("file", True, "is a file"),
        ("gone/x.html", False, "does not exist"),
    ],
)
def test_a_place_that_does_not_fit_is_refused_before_the_work(made, tmp_path, name, folder, message):
    (tmp_path / "there.html").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=message) as caught:
        report(made, out=tmp_path / name, folder=folder)
    assert caught.value.parameter == "out"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_page_of_somebody_else_is_not_replaced(made, tmp_path):
    out = tmp_path / "x.html"
    out.write_text("<!doctype html>\n<html lang=en>mine")
    with pytest.raises(UsageError, match="not made by"):
        report(made, out=out, overwrite=True)


def test_damaged_rows_are_an_error_and_damaged_features_a_note(cache):
    part = next((cache / "features").rglob("*.h5"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    found = report(cache)
    assert "near-identical rows were not searched" in found.sections["data"].notes[0]
    check_page(found.html())
    part = next((cache / "rows").glob("*.h5"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(Img2PromptError):
        report(cache)
