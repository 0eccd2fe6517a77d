"""Names of files: suffixes, encodings and types."""

from __future__ import annotations

import os
from pathlib import Path

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".avifs", ".jxl", ".heic", ".heif"),
)
"""Suffixes of files that are listed as images; not all of them can be decoded."""


def without_suffix(name: str) -> str:
    """Remove the suffix of an image from a path: ``a.png`` → ``a``; other endings stay: ``v1.5``."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in IMAGE_SUFFIXES else name


def is_folder(path: str | Path) -> bool:
    """Check whether a path is a folder; False, where pathlib raises, if it is too long or not accessible."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | Path) -> bool:
    """Check whether a path is a regular file; False, where pathlib raises, like `is_folder`."""
    return os.path.isfile(path)  # noqa: PTH113


def is_utf8(name: str) -> bool:
    """Check whether a name is valid text; Python escapes bytes that are not UTF-8 by surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """Replace what is not UTF-8 in a name, so that it can be shown in messages."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def is_below(top: str, path: str) -> bool:
    """Check whether a path is below the folder `top`; both with links resolved."""
    return path.startswith(top.rstrip(os.sep) + os.sep)
