"""Damaged parts: files that are not the ones the manifest records."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.cache.identity import BYTES, recorded_identity
from img2prompt_cache.cache.manifest import Column, Part
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.files import hash_file


@dataclass(frozen=True, slots=True)
class Damage:
    """A part that is not the one that the manifest records.

    Attributes
    ----------
    file : str
        Path inside the cache folder.
    reason : str
        What is wrong with it.
    """

    file: str
    reason: str


def size_damage_of(folder: Path, _column: Column, part: Part) -> str | None:
    """Say what is wrong with a part's file as far as can be told without reading it; None if nothing is."""
    try:
        status = (folder / part.file).lstat()
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a plain file"
    if status.st_size != part.bytes:
        return f"{status.st_size} bytes instead of {part.bytes}"
    return None


def damage_of(folder: Path, column: Column, part: Part) -> str | None:
    """Say what is wrong with a part's file; None if it is the one that is recorded."""
    found = size_damage_of(folder, column, part)
    if found:
        return found
    path = folder / part.file
    try:
        if hash_file(path) != part.sha256:
            return "its bytes have changed"
        with path.open("rb") as file:
            return recorded_identity(column, part).differs(file.read(BYTES)) or None
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def require_undamaged(folder: Path, column: Column, parts: Iterable[Part]) -> None:
    """Refuse parts of a column whose size or hash is not the recorded one, or that are other parts.

    Raises
    ------
    Img2PromptError
        Naming the first damaged part.
    """
    for part in parts:
        reason = damage_of(folder, column, part)
        if reason and not _is_recorded(folder, part):
            raise Img2PromptError(
                f"{folder} was changed by another process while it was read: {part.file} has been replaced. "
                "Do this again"
            )
        if reason:
            raise Img2PromptError(
                f"{folder / part.file} is damaged: {reason}. `repair()` computes again what is damaged in "
                f"{folder}."
            )


def _is_recorded(folder: Path, part: Part) -> bool:
    """Whether the manifest, as it is now, still records a part."""
    try:
        columns = load_manifest(folder).columns
    except Img2PromptError:
        return True
    return any(part in column.parts for column in columns)
