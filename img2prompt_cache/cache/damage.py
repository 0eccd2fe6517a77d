"""Damaged parts: files that are not the ones the manifest records."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.cache.identity import BYTES, recorded_identity
from img2prompt_cache.cache.manifest import KINDS, VIEW, Column, Manifest, Part
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


def find_damage(
    folder: Path, manifest: Manifest, damage_of: Callable[[Path, Column, Part], str | None]
) -> list[Damage]:
    """Check every part of a cache; see `Cache.verify`."""
    whole = set[Part]()
    while True:
        damaged = {}
        recorded = [(column, part) for column in manifest.columns for part in column.parts]
        for column, part in recorded:
            if part in whole:
                continue
            reason = damage_of(folder, column, part)
            if reason:
                damaged[part] = Damage(part.file, reason)
            else:
                whole.add(part)
        if not damaged:
            return []
        manifest = load_manifest(folder)
        if damaged.keys() <= {part for column in manifest.columns for part in column.parts}:
            return list(damaged.values())
        # A writer has put others in the place of some since: these are to be hashed instead.


def unrecorded_files(folder: Path, manifest: Manifest) -> list[str]:
    """List the files among the parts that the manifest does not record; see `Cache.unrecorded`."""
    recorded = {part.file for column in manifest.columns for part in column.parts}
    found = [path for path in folder.glob("*.h5") if path.name != VIEW]
    for kind in KINDS:
        for home, folders, files in os.walk(folder / kind):  # does not enter links to folders
            found += [Path(home, name) for name in files]
            found += [Path(home, name) for name in folders if Path(home, name).is_symlink()]
    names = (path.relative_to(folder).as_posix() for path in found if path.suffix != ".tmp")
    return sorted(name for name in names if name not in recorded)
