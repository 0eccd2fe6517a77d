"""Parts that are finished but not recorded: how workers that share a folder hand them over without a lock.

A worker computes a job in a folder of its own and renames that folder to the job's name when it is whole, so
a job is either there with everything or not there, and two workers at the same job do no harm: the second
finds the name taken and throws its own away. The name holds a digest of everything the parts depend on, so
that what is left of another pass is never taken for this one's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from img2prompt_cache.cache.manifest import Column, Part, part_file
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.passes import HOME, Pass, image_columns
from img2prompt_cache.extraction.plan import Job
from img2prompt_cache.files import hash_file, sync_folder, write_atomically

_RECORD = "parts.json"


def stage(work: Pass, job: Job, compute: Callable[[Path], list[tuple[Column, Part]]]) -> None:
    """Compute a job and leave it for the pass to adopt.

    Parameters
    ----------
    work : Pass
    job : Job
    compute : callable
        Writes the parts of the job below the folder it is given, and says what it wrote.
    """
    home = staged_path(work, job)
    own = home.with_name(f".{home.name}.{socket.gethostname()}-{os.getpid()}")
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    try:
        parts = compute(own)
        record = {
            column.folder: {"bytes": part.bytes, "sha256": part.sha256, "missing": part.missing}
            for column, part in parts
        }
        write_atomically(own / _RECORD, json.dumps(record).encode())
        try:
            own.rename(home)
        except OSError:
            if not is_staged(work, job):
                raise
        sync_folder(home.parent)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def is_staged(work: Pass, job: Job) -> bool:
    """Whether a job lies finished, or needs no worker."""
    return not image_columns(job) or (staged_path(work, job) / _RECORD).exists()


def adopt(work: Pass, job: Job) -> list[tuple[Column, Part]] | None:
    """Check the finished parts of a job and move them to where the manifest wants them.

    Adopting again what was moved but not recorded is fine.

    Returns
    -------
    list of (Column, Part) or None
        What to record; None if the job does not lie finished.

    Raises
    ------
    Img2PromptError
        If a part is not what its worker wrote. It is removed, so that the job can be computed again.
    """
    if not image_columns(job):
        return []
    home = staged_path(work, job)
    if not (home / _RECORD).exists():
        return None
    parts, moves = [], []
    try:
        record = json.loads((home / _RECORD).read_bytes())
        for column in image_columns(job):
            name = part_file(column.folder, job.number)
            staged, final = home / name, work.folder / name
            part = _part(record[column.folder], name, job, column)
            _require_whole(staged if staged.exists() else final, part)
            parts.append((column, part))
            moves.append((staged, final))
    except (OSError, ValueError, KeyError, TypeError) as error:
        shutil.rmtree(home, ignore_errors=True)
        raise Img2PromptError(
            f"part {job.number} was finished but is damaged now ({error}); it was removed, to be computed "
            "again: run the same command, or its shard, once more"
        ) from None
    for staged, final in moves:
        final.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # moved already, before a crash
            staged.replace(final)
        sync_folder(final.parent)
    return parts


def clear(folder: Path) -> None:
    """Remove everything that a shared pass left in a cache's folder."""
    shutil.rmtree(folder / HOME, ignore_errors=True)


def staged_path(work: Pass, job: Job) -> Path:
    """Name the folder of a finished job; it tells by a digest what its parts were computed from."""
    depends = {
        "columns": [(c.folder, c.shape, c.dtype, c.fingerprint) for c in image_columns(job)],
        "batch_size": work.manifest.batch_size,
        "source": work.manifest.sources[job.source],
        "start": job.start,
        "rows": work.rows(job).text,
    }
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    return work.folder / HOME / f"{job.number:05d}-{digest[:20]}"


def _part(entry: dict[str, Any], name: str, job: Job, column: Column) -> Part:
    missing = tuple(map(int, entry["missing"]))
    source = job.source if column.kind == "rows" else 0
    return Part(name, job.start, job.stop, int(entry["bytes"]), str(entry["sha256"]), missing, source)


def _require_whole(path: Path, part: Part) -> None:
    if path.is_symlink() or path.stat().st_size != part.bytes or hash_file(path) != part.sha256:
        raise ValueError(f"{part.file} has changed")
