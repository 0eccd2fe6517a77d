"""Names of files: suffixes, encodings and types."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".avifs", ".jxl", ".heic", ".heif"),
)
"""Suffixes of files that are listed as images; not all of them can be decoded."""

NOT_DECODED = (".jxl", ".heic", ".heif")
"""Suffixes of images that cannot be decoded, whatever version of Pillow there is."""


def without_suffix(name: str) -> str:
    """Remove the suffix of an image from a path: ``a.png`` → ``a``; other endings stay: ``v1.5``."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in IMAGE_SUFFIXES else name


def without_originals(images: Sequence[str]) -> tuple[list[str], list[str]]:
    """Leave out images that cannot be decoded beside a copy of the same name that can: phones keep both.

    Returns
    -------
    kept, left_out : list of str
    """
    originals = {name for name in images if name.lower().endswith(NOT_DECODED)}
    if not originals:
        return list(images), []
    copies = {without_suffix(name) for name in images if name not in originals}
    left_out = {name for name in originals if without_suffix(name) in copies}
    return [name for name in images if name not in left_out], sorted(left_out)


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
