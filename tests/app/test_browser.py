"""The page in Chromium: one test for each thing that a person does."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import uvicorn

from chromium import UNREADABLE
from img2prompt_cache.app.server import create_app
from img2prompt_cache.app.settings import Limits, Settings

pytestmark = pytest.mark.browser

LIMITS = Limits(file_bytes=64 << 10, pixels=1 << 20)
TOKEN = "a-token-that-nobody-guesses"
HOSTILE = (
    '<img src=x onerror="document.title=1">',
    "</li><script>document.title=2</script>",
    "\u202eevil \x1b[31m prompt",
    "x" * 20_000,
)
SOON = 20_000


@contextmanager
def serving(app, port=0):
    """The app behind a real socket, in a thread."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://localhost:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def app_of(settings):
    return create_app(settings)


@pytest.fixture(scope="module")
def app(served):
    return app_of(Settings(served, device="cpu", limits=LIMITS))


@pytest.fixture(scope="module")
def address(app):
    with serving(app) as address:
        yield address


class Shown:
    """A page that is open, what it asked for, and what went wrong in it."""

    def __init__(self, context, address):
        self.page = context.new_page()
        self.page.set_default_timeout(SOON)
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._said(message.text))
        self.page.goto(address)

    def _said(self, text):
        if "Content Security Policy" in text:
            self.errors.append(text)

    def add(self, *paths):
        self.page.locator("#drop").wait_for()
        self.page.set_input_files("#files", list(paths))

    def settled(self, count):
        """Wait until every image is answered; give the cards, the newest first."""
        cards = self.page.locator(".card")
        self.page.locator(f".card:nth-child({count})").wait_for()
        for at in range(count):
            self.page.locator(f".card:nth-child({at + 1})[aria-busy=false]").wait_for()
        assert cards.count() == count
        return [cards.nth(at) for at in range(count)]


@pytest.fixture
def shown(browser, address):
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    found = Shown(context, address)
    yield found
    assert found.errors == []
    outside = [url for url in found.requests if not url.startswith((address, "blob:" + address))]
    assert outside == []
    context.close()


def test_images_are_chosen_and_each_is_answered_by_itself(shown, pairs, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes((pairs / "img001.png").read_bytes() + b"\0" * LIMITS.file_bytes)
    shown.add(pairs / "img003.png", pairs / "words.png", pairs / "img007.png", large)
    third, second, first, zeroth = shown.settled(4)
    assert "Too large" in third.inner_text()
    assert "not an image" in first.inner_text().lower()
    for card in (zeroth, second):
        assert card.locator(".prompts li").count() == 5
        cosines = [float(text.split()[0]) for text in card.locator(".prompts .score").all_inner_texts()]
        assert len({*card.locator(".prompts p").all_inner_texts()}) == 5
        assert all(-1 <= cosine <= 1 for cosine in cosines)
        assert re.search(r"Expected cosine with the true prompt\s*-?\d\.\d\d", card.inner_text())
    assert shown.page.locator("#count").inner_text() == "2 of 4 images, 2 could not be used"


def test_pictures_that_look_alike_can_be_enlarged(shown, pairs):
    for _ in range(20):  # until the run has looked at the pictures of the cache
        shown.add(pairs / "img006.png")
        (card,) = shown.settled(1)
        if card.locator(".alike .tile").count():
            break
        shown.page.click("#clear")
    tiles = card.locator(".alike .tile")
    assert tiles.count() == 6
    assert "img006" in tiles.first.get_attribute("aria-label")
    tiles.first.click()
    picture = shown.page.locator("#large-picture img")
    picture.wait_for()
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 40
    shown.page.keyboard.press("Escape")
    assert not shown.page.locator("#large").is_visible()


def sent(page, path, kind):
    """A paste or a drop of a file, as the browser tells the page of it."""
    data = list(path.read_bytes())
    page.evaluate(
        """([bytes, name, kind]) => {
          const moved = new DataTransfer();
          moved.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          const event = kind === "paste"
            ? new ClipboardEvent("paste", { clipboardData: moved, bubbles: true, cancelable: true })
            : new DragEvent(kind, { dataTransfer: moved, bubbles: true, cancelable: true });
          document.body.dispatchEvent(event);
        }""",
        [data, path.name, kind],
    )


def test_images_are_dropped_and_pasted(shown, pairs):
    shown.page.locator("#drop").wait_for()
    sent(shown.page, pairs / "img001.png", "dragenter")
    assert "over" in shown.page.locator("body").get_attribute("class")
    sent(shown.page, pairs / "img001.png", "drop")
    sent(shown.page, pairs / "img002.png", "paste")
    pasted, dropped = shown.settled(2)
    assert pasted.locator("h2").inner_text() == "img002.png"
    assert dropped.locator("h2").inner_text() == "img001.png"
    assert "over" not in (shown.page.locator("body").get_attribute("class") or "")


def test_a_prompt_is_copied(shown, pairs):
    shown.add(pairs / "img003.png")
    (card,) = shown.settled(1)
    line = card.locator(".prompts .line").first
    line.locator("button").click()
    shown.page.get_by_text("Copied").wait_for()
    assert shown.page.evaluate("navigator.clipboard.readText()") == line.locator("p").inner_text()


def test_embeddings_are_downloaded(shown, served, pairs):
    from img2prompt_cache.runs.names import open_run

    paths = [pairs / "img001.png", pairs / "words.png", pairs / "img004.png"]
    shown.add(*paths)
    shown.settled(3)
    expected = open_run(None, served).predict([paths[0], paths[2]]).vectors
    with shown.page.expect_download() as download:
        shown.page.click("#npy")
    found = np.load(download.value.path(), allow_pickle=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)
    with shown.page.expect_download() as download:
        shown.page.click("#json")
    images = json.loads(download.value.path().read_text())["images"]
    assert [each["name"] for each in images] == ["img001.png", "img004.png"]
    np.testing.assert_allclose([each["embedding"] for each in images], expected, atol=1e-3)


def test_another_run_answers_for_the_same_images(shown, pairs):
    shown.add(pairs / "img001.png", pairs / "img002.png")
    shown.settled(2)
    names = shown.page.locator("#run option").all_inner_texts()
    mean = next(name for name in names if name.startswith("mean-"))
    shown.page.select_option("#run", label=mean)
    one, other = shown.settled(2)
    assert "(mean)" in shown.page.locator("#about-run").inner_text()
    assert one.locator(".prompts").inner_text() == other.locator(".prompts").inner_text()


def test_a_prompt_is_composed_when_it_is_asked_for(shown, pairs):
    shown.add(pairs / "img003.png")
    (card,) = shown.settled(1)
    assert card.locator(".composed").count() == 0
    shown.page.check("#compose")
    card.locator(".composed .line p").wait_for()
    assert card.locator(".composed .line p").inner_text()


def test_the_gallery_is_looked_through_and_searched(shown):
    page = shown.page
    page.click("#to-gallery")
    page.locator("#pictures li:nth-child(20)").wait_for()
    assert page.locator("#found").inner_text() == "20 pictures"
    page.fill("#query", "a calm sea at night, 4 pixel art")
    page.check("input[value=true]")
    page.click("#search button")
    page.locator("#found", has_text="nearest to").wait_for()
    cosines = [float(text) for text in page.locator("#pictures .cosines b").all_inner_texts()]
    assert cosines[0] == 1.0
    assert cosines == sorted(cosines, reverse=True)
    page.check("input[value=predicted]")
    page.locator("#pictures .cosines", has_text="predicted").first.wait_for()
    page.fill("#query", "")
    page.click("#search button")
    page.locator("#found", has_text="20 pictures").wait_for()


@pytest.fixture(scope="module")
def hostile(served, tmp_path_factory):
    """An app with a token, and with prompts and names that try to do harm."""
    folder = tmp_path_factory.mktemp("hostile")
    bank = folder / "bank.jsonl"
    bank.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in HOSTILE))
    settings = Settings(served, bank=bank, device="cpu", token=TOKEN, limits=LIMITS)
    with serving(app_of(settings)) as address:
        yield address


def test_a_token_opens_the_page_from_its_address_or_its_form(browser, hostile, pairs):
    with ExitStack() as stack:
        context = stack.enter_context(closing_context(browser))
        shown = Shown(context, f"{hostile}#token={TOKEN}")
        shown.page.locator("#drop").wait_for()
        assert TOKEN not in shown.page.url
        shown.page.click("#to-gallery")
        picture = shown.page.locator("#pictures img").first
        picture.wait_for()
        assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 40

        other = stack.enter_context(closing_context(browser))
        locked = Shown(other, hostile)
        locked.page.locator("#token").wait_for()
        assert locked.page.evaluate(UNREADABLE) == []
        locked.page.fill("#token", "x" * 20)
        locked.page.click("#unlock button")
        locked.page.get_by_text("This is not the token.").wait_for()
        locked.page.fill("#token", TOKEN)
        locked.page.click("#unlock button")
        locked.page.locator("#drop").wait_for()
        assert shown.errors == locked.errors == []


@contextmanager
def closing_context(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    yield context
    context.close()


def test_prompts_and_names_are_text_and_nothing_else(browser, hostile, pairs, tmp_path):
    name = "<img src=x onerror=document.title=3>.png"
    path = tmp_path / name
    path.write_bytes((pairs / "img001.png").read_bytes())
    with closing_context(browser) as context:
        shown = Shown(context, f"{hostile}#token={TOKEN}")
        shown.add(path)
        (card,) = shown.settled(1)
        assert card.locator("h2").inner_text() == name
        texts = card.locator(".prompts .line p").all_text_contents()
        assert {*HOSTILE[:2]} <= {*texts}
        assert max(map(len, texts)) < 5000
        assert shown.page.title() == "img2prompt-cache"
        assert card.locator("script, .prompts img").count() == 0
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= 1200
        assert shown.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_can_be_read_light_and_dark_on_wide_and_narrow_screens(browser, address, pairs, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    shown = Shown(context, address)
    shown.add(pairs / "img001.png", pairs / "words.png")
    shown.settled(2)
    assert shown.page.evaluate(UNREADABLE) == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    shown.page.click("#to-gallery")
    shown.page.locator("#pictures li").first.wait_for()
    assert shown.page.evaluate(UNREADABLE) == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    shown.page.goto(f"{address}docs")
    shown.page.locator(".route").first.wait_for()
    assert shown.page.evaluate(UNREADABLE) == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.errors == []
    context.close()


def test_everything_has_a_name_and_can_be_reached_by_keyboard(shown, pairs):
    page = shown.page
    page.locator("#drop").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"run", "theme", "files"} <= reached
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, a")].filter((each) => each.checkVisibility()
          && !each.textContent.trim() && !each.getAttribute("aria-label") && !each.labels?.length).length"""
    )
    assert nameless == 0
    assert page.locator("img:not([alt])").count() == 0


def test_the_page_says_when_the_app_is_gone_and_goes_on_when_it_is_back(browser, app, pairs):
    with closing_context(browser) as context:
        with serving(app) as address:
            shown = Shown(context, address)
            shown.add(pairs / "img001.png")
            shown.settled(1)
        shown.add(pairs / "img002.png")
        failed, kept = shown.settled(2)
        shown.page.locator("#gone").wait_for()
        assert kept.locator(".prompts li").count() == 5
        with serving(app, int(address.rpartition(":")[2].strip("/"))):
            shown.page.locator("#gone").wait_for(state="hidden")
            failed.get_by_text("Try again").click()
            failed.locator(".prompts li").first.wait_for()


def test_a_page_of_which_the_app_fails_at_once_is_not_blank(browser, app):
    with closing_context(browser) as context, serving(app) as address:
        context.route(f"{address}runs", lambda route: route.abort())
        shown = Shown(context, address)
        shown.page.locator("#loading button").wait_for()
        assert "does not answer" in shown.page.locator("#loading").inner_text()
        context.unroute(f"{address}runs")
        shown.page.locator("#loading button").click()
        shown.page.locator("#drop").wait_for()
