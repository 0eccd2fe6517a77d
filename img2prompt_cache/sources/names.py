"""Names of files: what they say, and where they lead."""

from __future__ import annotations

import os
from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""What counts as an image when a folder is listed; whether it can be decoded is another question."""


def without_suffix(name: str) -> str:
    """Cut the suffix of an image off a path; ``a.png`` → ``a``; any other ending stays: ``v1.5``."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in IMAGE_SUFFIXES else name


def is_folder(path: str | Path) -> bool:
    """Say whether a path leads to a folder; False, where pathlib raises, for one too long or closed to us."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | Path) -> bool:
    """Say whether a path leads to a regular file; False where `is_folder` is."""
    return os.path.isfile(path)  # noqa: PTH113


def is_utf8(name: str) -> bool:
    """Say whether a name is text, and not bytes that Python escaped."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """Make text of a name that is not UTF-8, for messages."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def is_below(top: str, path: str) -> bool:
    """Say whether a path lies in the folder `top`; both without links in them."""
    return path.startswith(top.rstrip(os.sep) + os.sep)
