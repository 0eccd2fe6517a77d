"""The file that a leaderboard is written to."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.destination import begins_with, require_earlier_output, require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import write_atomically
from img2prompt_cache.runs.board_table import CSV_FIRST, FORMATS, LATEX_FIRST, MARKDOWN_FIRST

if TYPE_CHECKING:
    from img2prompt_cache.runs.board import Leaderboard

EXTENSIONS = {".md": "md", ".csv": "csv", ".tex": "latex"}


def format_of(out: Path, format: str | None) -> str:
    """Choose the format of a file: the one named, which has to fit the extension, or by the extension.

    Raises
    ------
    UsageError
    """
    by_extension = EXTENSIONS.get(out.suffix.lower())
    if format is not None and format in FORMATS and by_extension in (format, None):
        return format
    if format is None and by_extension is not None:
        return by_extension
    if format is not None and format in FORMATS:
        why = f"is no {format} file by its extension"
    else:
        why = (
            f"the extension must be one of {', '.join(EXTENSIONS)}, or name a `format`: {', '.join(FORMATS)}"
        )
    raise UsageError(f"`out` {out}: {why}", parameter="out")


def require_free(out: Path, format: str | None, *, overwrite: bool) -> None:
    """Refuse early, before the work is done, what may not be written.

    Raises
    ------
    UsageError
        If the extension is unknown, the folder is not there or among the files of a cache or run, or a file
        is there already and `overwrite` is not set or it is no earlier output.
    """
    format_of(out, format)
    require_free_place(out, "out")
    if not out.parent.is_dir():
        raise UsageError(
            f"`out` {out}: the folder {out.parent} does not exist; make it first", parameter="out"
        )
    if out.is_dir():
        raise UsageError(f"`out` {out} is a folder; name a file", parameter="out")
    if os.path.lexists(out) and not overwrite:
        raise UsageError(
            f"`out` {out} exists; give `overwrite=True` to replace it, or another name", parameter="out"
        )
    require_earlier_output(out, "out", "compare", _is_ours)


def save_board(board: Leaderboard, out: Path, format: str | None) -> None:
    """Write a leaderboard.

    Raises
    ------
    Img2PromptError
        If it cannot be written.
    """
    try:
        write_atomically(out, board.table(format_of(out, format)).encode())
    except OSError as error:
        raise Img2PromptError(
            f"`out` {out} cannot be written: {error.strerror or error}", parameter="out"
        ) from None


def _is_ours(path: Path) -> bool:
    return begins_with(path, "|".join(map(re.escape, (CSV_FIRST, LATEX_FIRST, MARKDOWN_FIRST))).encode())
