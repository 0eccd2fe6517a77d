"""The one writer of a cache: its lock, its commits, and what it removes after a crash."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from img2prompt_cache.cache.manifest import KINDS, Column, Manifest, Part, part_file, revision_of
from img2prompt_cache.cache.manifest_file import NAME, load_manifest, save_manifest
from img2prompt_cache.destination import require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import write_atomically
from img2prompt_cache.locks import lock as lock_file

LOCK = ".lock"
HOLDER = ".writer.json"
_PATIENCE = 0.5
"""Seconds that a writer waits for the lock: `find_writer` holds it for a moment, too."""
RECOMPUTED = ".redo"
"""Folder for parts that are computed again, until they are compared with the recorded ones."""


@contextmanager
def writing(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the cache's lock: one writer at a time; the operating system releases it when its holder dies.

    A folder that was made for a cache that did not come to be is removed again.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder; made if it is not there.
    wait : bool
        Wait until whoever holds the lock releases it.

    Raises
    ------
    Img2PromptError
        If another process holds the lock (the message names it), or the folder cannot be written.
    UsageError
        If `folder` is a file, holds something that is not a cache, or lies in another cache or a run.
    """
    from filelock import FileLock, Timeout

    while True:
        made = _claim(folder)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=-1 if wait else _PATIENCE)
        except Timeout:
            told = f"{folder} is being written by {_holder(folder)}; wait for it to end"
            raise Img2PromptError(told) from None
        except OSError as error:
            if not folder.exists():  # whoever held the lock has removed the folder meanwhile
                continue
            raise Img2PromptError(f"{folder} cannot be written: {error.strerror or error}") from None
        if (folder / LOCK).exists():
            break
        lock.release()
    try:
        me = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _remove_leftovers(folder)
        write_atomically(folder / HOLDER, json.dumps(me).encode())
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink(missing_ok=True)
        if made and not (folder / NAME).exists():
            _remove_unused(folder, made)
        lock.release()


def _remove_unused(folder: Path, made: list[Path]) -> None:
    """Remove the folder of a cache that did not come to be, and those above it that were made for it."""
    with suppress(OSError):  # something else lies in one of them, or Windows keeps the lock
        (folder / LOCK).unlink()
        for each in made:
            each.rmdir()


def find_writer(folder: Path) -> str | None:
    """Name the process that is writing a cache now: ``"process 812 on host since 2026-11-27T20:11:05"``.

    Returns
    -------
    str or None
        None if there is none, or where the system cannot tell.
    """
    try:
        os.close(lock_file(folder / LOCK, shared=True))
    except BlockingIOError:
        return _holder(folder)
    except OSError:
        pass
    return None


def _claim(folder: Path) -> list[Path]:
    """Make the folder of a cache, or require that it is one; give the folders made, inner ones first."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; `cache` names a folder", parameter="cache")
    if not (folder / NAME).exists():
        require_free_place(folder, "cache")
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / NAME).exists():
            strangers = [
                entry.name for entry in folder.iterdir() if entry.is_symlink() or not _ours(entry.name)
            ]
            if strangers:
                raise UsageError(
                    f"{folder} is not a cache and not empty (it holds {strangers[0]}); name another folder "
                    "in `cache`",
                    parameter="cache",
                )
    except OSError as error:
        raise Img2PromptError(f"{folder} cannot be written: {error.strerror}") from None
    return made


def _ours(name: str) -> bool:
    return name in (LOCK, HOLDER, *KINDS, ".gitignore") or name.endswith(".tmp")


def _holder(folder: Path) -> str:
    try:
        held = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {held['pid']} on {held['host']} since {held['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"


def _remove_leftovers(folder: Path) -> None:
    """Remove what a crash left half written. Whole parts that are not recorded stay: they are replaced."""
    recomputed = folder / RECOMPUTED
    if recomputed.is_symlink():
        recomputed.unlink()
    elif recomputed.exists():
        shutil.rmtree(recomputed)
    for pattern in (".*.tmp", *(f"{kind}/**/.*.tmp" for kind in KINDS)):
        for leftover in folder.glob(pattern):
            if leftover.is_symlink() or not leftover.is_dir():  # a folder may be a run that is being saved
                leftover.unlink(missing_ok=True)


def commit(folder: Path, manifest: Manifest, parts: Iterable[tuple[Column, Part]]) -> Manifest:
    """Record finished parts.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder, locked by `writing`.
    manifest : Manifest
        As it is now.
    parts : iterable of (Column, Part)
        Each takes the place of the recorded part of the same rows, or follows the last one. A file that
        has another name than the one in its place is removed, once the manifest is saved.

    Returns
    -------
    Manifest
        As saved.
    """
    stale = set()
    for column, part in parts:
        current = manifest.column(column.kind, column.spec) or column
        stale |= {old.file for old in current.parts if old.start == part.start and old.file != part.file}
        kept = tuple(old for old in current.parts if old.start != part.start)
        ordered = tuple(sorted((*kept, part), key=lambda p: p.start))
        manifest = manifest.with_column(replace(current, parts=ordered))
    save_manifest(folder, manifest)
    for file in stale:
        (folder / file).unlink(missing_ok=True)
    return manifest


def remove_superseded(folder: Path, manifest: Manifest) -> None:
    """Remove parts that a process which was killed had replaced and could not remove any more.

    They have the name of a recorded part and an earlier revision.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder, locked by `writing`.
    manifest : Manifest
        As saved.
    """
    for column in manifest.columns:
        for number, part in enumerate(column.parts):
            for revision in range(revision_of(part.file)):
                (folder / part_file(column.folder, number, revision)).unlink(missing_ok=True)


def open_manifest(folder: Path) -> Manifest | None:
    """Read the manifest, or None where the cache is still to be made."""
    return load_manifest(folder) if (folder / NAME).exists() else None
