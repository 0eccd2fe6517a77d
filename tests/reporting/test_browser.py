"""A report in Chromium with the network off: what people see, and everything they can do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import UNREADABLE
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.reporting.report import report
from kit import Tiny

pytestmark = pytest.mark.browser
pytest.importorskip("matplotlib")
pytest.importorskip("wordcloud")


@pytest.fixture(scope="module")
def folder(tiny: Tiny, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report as a file and as a folder."""
    folder = tmp_path_factory.mktemp("browser")
    tiny.extract(pairs, folder / "cache")
    for head in ("mean", "ridge", "mlp"):
        settings = {"ridge": {"alpha": 1.0}, "mlp": {"hidden": (8,), "epochs": 2}}.get(head, {})
        fit_head(Cache(folder / "cache"), FitConfig(head, settings, split="random"))
    report(folder / "cache", out=folder / "report.html")
    report(folder / "cache", out=folder / "report", folder=True)
    return folder


class Shown:
    """A page that is open, and what went wrong in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        return self.page


@pytest.fixture
def shown(browser: Any) -> Iterator[Shown]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    found = Shown(context.new_page())
    yield found
    assert found.errors == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_can_be_read_light_and_dark_on_wide_and_narrow_screens(browser, folder, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(UNREADABLE) == []
    context.close()


def test_it_asks_for_nothing_but_itself(shown, folder):
    page = shown.open(folder / "report.html")
    page.mouse.wheel(0, 20_000)
    page.wait_for_timeout(200)
    others = [url for url in shown.requests if not url.startswith("data:")]
    assert others == [(folder / "report.html").as_uri()]
    broken = (
        "[...document.images].filter((each) => each.complete && !each.naturalWidth && each.src !== 'data:,')"
    )
    assert page.evaluate(f"{broken}.length") == 0


def test_the_policy_forbids_what_is_not_of_the_page(browser, folder):
    context = browser.new_context(offline=False)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((folder / "report.html").as_uri())
    page.evaluate(
        """() => { const script = document.createElement("script"); script.textContent = "window.bad = 1";
        document.body.append(script); const image = new Image(); image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image); }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.bad") is None
    assert len([line for line in said if "Content Security Policy" in line]) >= 2
    context.close()


def test_a_folder_shows_its_pictures(shown, folder):
    page = shown.open(folder / "report" / "index.html")
    page.locator("#data img").first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#data img').naturalWidth > 0")


def test_a_table_is_sorted_by_mouse_and_by_keyboard(shown, folder):
    page = shown.open(folder / "report.html")
    board = page.locator("table.sortable.board")
    button = board.locator("thead th button", has_text=re.compile("^cosine$"))
    cells = board.locator("tbody tr td:nth-child(3)")
    button.click()
    rising = [float(text.replace("−", "-")) for text in cells.all_inner_texts()]
    assert rising == sorted(rising)
    assert board.locator("th[aria-sort=ascending]").count() == 1
    button.press("Enter")
    assert [float(text.replace("−", "-")) for text in cells.all_inner_texts()] == sorted(rising, reverse=True)


def test_cases_are_found_by_words_and_kind(shown, folder):
    page = shown.open(folder / "report.html")
    cases = page.locator("#case-list > li")
    whole = cases.count()
    prompt = cases.first.locator(".truth").inner_text().split("\n")[-1].strip()
    page.locator("#cases input").fill(prompt)
    assert 0 < page.locator("#case-list > li:visible").count() <= whole
    page.locator("#cases input").fill("no such word anywhere")
    assert page.locator("#case-list > li:visible").count() == 0
    assert page.locator("#cases output").inner_text() == f"0 of {whole} shown"
    page.locator("#cases input").fill("")
    page.locator("#cases select").first.select_option("best")
    assert 0 < page.locator("#case-list > li:visible").count() <= whole


def test_a_picture_opens_large_and_closes_by_keyboard(shown, folder):
    page = shown.open(folder / "report.html")
    picture = page.locator("#data img").first
    picture.focus()
    picture.press("Enter")
    assert page.locator("dialog[open] img").get_attribute("alt") == picture.get_attribute("alt")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    picture.click()
    page.locator("dialog button").click()
    assert page.locator("dialog[open]").count() == 0


def test_a_point_of_the_map_shows_its_picture_and_prompt_and_is_marked_on_both(shown, folder):
    page = shown.open(folder / "report.html")
    point = page.locator("svg.map circle").nth(5)
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    number = page.locator("svg.map circle.near").first.get_attribute("data-i")
    assert page.locator("svg.map circle.near").count() == 2
    prompt = page.locator(f"#map-rows tr[data-i='{number}'] td").first.text_content()
    assert page.locator("#map-tip:visible p").inner_text().startswith(prompt)
    assert page.evaluate("document.querySelector('#map-tip img').naturalWidth") > 0
    page.mouse.move(2, 2)
    assert page.locator("#map-tip").is_hidden()


def test_the_map_is_coloured_by_score(shown, folder):
    page = shown.open(folder / "report.html")
    colour = "getComputedStyle(document.querySelector('svg.map circle:not([data-level=\"-1\"])')).fill"
    before = page.evaluate(colour)
    page.locator("#map-colours select").select_option("level")
    assert page.evaluate(colour) != before


def test_light_and_dark_are_switched(shown, folder):
    page = shown.open(folder / "report.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.locator("#theme").click()
    assert page.evaluate(colour) != before
    page.locator("#theme").click()
    assert page.evaluate(colour) == before


def test_it_is_whole_without_its_script(browser, folder):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    assert page.locator("#theme").is_hidden()
    assert page.locator("#cases form.filter").is_hidden()
    assert page.locator("#case-list > li:visible").count() == page.locator("#case-list > li").count() > 0
    context.close()
