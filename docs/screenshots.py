"""Take the screenshots of the report in the docs, in Chromium without a window.

    img2prompt-cache demo                        # makes demo/report.html
    python docs/screenshots.py demo/report.html

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
    "report-light.webp": ("light", 1200, 900, "#heads"),
    "report-dark.webp": ("dark", 1200, 900, "#cases"),
    "report-narrow.webp": ("light", 360, 780, "#data"),
}
"""File: colours, width, height, and the section that it begins with."""


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


def main() -> None:
    """Take all of them."""
    page = Path(sys.argv[1])
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, shot in SHOTS.items():
            image = Image.open(io.BytesIO(shoot(browser, page, *shot))).convert("RGB")
            image.save(HERE / name, quality=80, method=6)
        browser.close()


if __name__ == "__main__":
    main()
