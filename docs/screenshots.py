"""Take the screenshots of the report and of the app in the docs, in Chromium without a window.

    img2prompt-cache demo                        # makes demo/report.html
    python docs/screenshots.py demo/report.html
    img2prompt-cache app --cache demo/cache &    # says where it is
    python docs/screenshots.py http://localhost:8765/ demo/new/*.png

It takes Playwright and Debian's `chromium`; the pictures are WebP files beside this one.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
SHOTS = {
    "report-heads.webp": ("light", 1200, 900, "#heads"),
    "report-map.webp": ("light", 1200, 900, "#map"),
    "report-cases.webp": ("dark", 1200, 900, "#cases form"),
    "report-narrow.webp": ("light", 360, 780, "#data"),
}
"""File: colours, width, height, and the section that it begins with."""
OF_THE_APP = {
    "app-light.webp": ("light", 1200, 900, ""),
    "app-dark.webp": ("dark", 1200, 900, "a small house by a lake at night"),
    "app-narrow.webp": ("light", 360, 780, ""),
}
"""File: colours, width, height, and what the gallery is searched for; empty for the page that predicts."""


def shoot(browser: Any, page: Path, scheme: str, width: int, height: int, section: str) -> bytes:
    """Take one screenshot, as PNG."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True, device_scale_factor=1
    )
    shown = context.new_page()
    shown.goto(page.resolve().as_uri())
    shown.evaluate("(section) => document.querySelector(section).scrollIntoView()", section)
    shown.wait_for_timeout(500)
    data: bytes = shown.screenshot()
    context.close()
    return data


def shoot_app(
    browser: Any, address: str, images: list[str], scheme: str, width: int, height: int, query: str
) -> bytes:
    """Take one screenshot of the app, as PNG."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    shown = context.new_page()
    shown.goto(address)
    shown.locator("#drop").wait_for()
    if query:
        shown.click("#to-gallery")
        shown.fill("#query", query)
        shown.click("#search button")
        shown.locator("#found", has_text="nearest to").wait_for(timeout=120_000)
    else:
        shown.set_input_files("#files", images)
        shown.check("#compose")
        for at in range(len(images)):
            shown.locator(f".card:nth-child({at + 1}) .composed").wait_for(timeout=300_000)
    shown.wait_for_load_state("networkidle")
    data: bytes = shown.screenshot()
    context.close()
    return data


def main() -> None:
    """Take all of them."""
    page, images = sys.argv[1], sys.argv[2:]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, shot in (OF_THE_APP if images else SHOTS).items():
            data = shoot_app(browser, page, images, *shot) if images else shoot(browser, Path(page), *shot)
            image = Image.open(io.BytesIO(data)).convert("RGB")
            image.save(HERE / name, quality=80, method=6)
        browser.close()


if __name__ == "__main__":
    main()
