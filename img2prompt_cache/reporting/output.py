"""Where a report is written: one file, or a folder with its pictures beside the page."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from img2prompt_cache.destination import begins_with, require_earlier_output, require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import Replacement, write_atomically
from img2prompt_cache.reporting.page import MARK, Page
from img2prompt_cache.reporting.pictures import Picture, Pictures

FILE = "report.html"
FOLDER = "report"
INDEX, IMAGES = "index.html", "images"
SUFFIXES = (".html", ".htm")


def check_free(out: Path, *, folder: bool, overwrite: bool) -> None:
    """Refuse early to replace what is no earlier report, or an earlier one without `overwrite`.

    Raises
    ------
    UsageError
        If something is at that path, it has another extension, or lies among the files of a cache or run; in
        the folder of a cache itself a report is where it belongs.
    """
    require_free_place(out, "out", own="report*" if folder else "*.html")
    if not out.parent.is_dir():
        raise UsageError(
            f"`out` {out}: the folder {out.parent} does not exist; make it first", parameter="out"
        )
    if not folder and out.is_dir():
        raise UsageError(
            f"`out` {out} is a folder; name a file, or have a folder written by `report(folder=True)`",
            parameter="out",
        )
    if not folder and out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"`out` {out}: the extension must be .html", parameter="out")
    if folder and os.path.lexists(out) and not out.is_dir():
        raise UsageError(f"`out` {out} is a file; name a folder, or leave out `folder`", parameter="out")
    if not os.path.lexists(out) or (folder and not any(out.iterdir())):
        return
    if not overwrite:
        raise UsageError(
            f"`out` {out} exists; give `overwrite=True` to replace it, or another name", parameter="out"
        )
    if folder and not (_is_ours(out / INDEX) and {path.name for path in out.iterdir()} <= {INDEX, IMAGES}):
        raise UsageError(
            f"`out` {out} is there and holds what was not made by `report()`, so nothing replaces it; name "
            "another folder, or remove it first",
            parameter="out",
        )
    if not folder:
        require_earlier_output(out, "out", "report", _is_ours)


def write_page(out: Path, text: str) -> None:
    """Write a page as one file.

    Raises
    ------
    Img2PromptError
        If it cannot be written.
    """
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise _failed(out, error) from None


def write_folder(out: Path, pictures: Pictures, render: Callable[[Page], str]) -> None:
    """Write a page and its pictures into a folder.

    Parameters
    ----------
    out : pathlib.Path
    pictures : Pictures
    render : callable
        Fills in the page.

    Raises
    ------
    Img2PromptError
        If it cannot be written.
    """
    try:
        with Replacement(out, folder=True) as new:
            (new.temporary / IMAGES).mkdir()
            written: set[int] = set()

            def link(row: int, found: Picture) -> str:
                name = f"{IMAGES}/{row:06d}.webp"
                if row not in written:
                    (new.temporary / name).write_bytes(found.thumbnail)
                    written.add(row)
                return name

            text = render(Page(pictures, link=link))
            (new.temporary / INDEX).write_text(text, encoding="utf-8")
            new.commit()
    except OSError as error:
        raise _failed(out, error) from None


def _is_ours(path: Path) -> bool:
    try:
        return begins_with(path, MARK.encode())
    except OSError:
        return False


def _failed(out: Path, error: OSError) -> Img2PromptError:
    return Img2PromptError(f"`out` {out} cannot be written: {error.strerror or error}", parameter="out")
