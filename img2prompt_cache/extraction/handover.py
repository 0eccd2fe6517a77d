"""What processes that share a pass hand over: its plan, and parts that are finished but not recorded.

The process that holds the cache's lock writes the pass down (`save_pass`); the others read it (`load_pass`)
instead of listing the source again, so that all of them see the same rows under the same numbers.

A worker computes a job in a folder of its own and renames that folder to the job's name when it is whole, so
a job is either there with everything or not there, and two workers at the same job do no harm: the second
finds the name taken and deletes its own folder. The name holds a digest of everything the parts depend on, so
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from img2prompt_cache.cache.identity import BYTES, recorded_identity
from img2prompt_cache.cache.manifest import PART_SCHEMA, Column, Part, part_file
from img2prompt_cache.cache.manifest_file import load_manifest
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.plan import find_jobs
from img2prompt_cache.extraction.work import Job, OpenSources, Pass, image_columns
from img2prompt_cache.files import hash_file, sync_folder, write_atomically
from img2prompt_cache.sources.base import COLUMNS, Summary

HOME = ".pass"
"""Folder inside the cache where a shared pass keeps its plan and its finished, not yet recorded parts."""
PLAN = "plan.arrow"
_KEY = b"img2prompt-cache"
_RECORD = "parts.json"


def save_pass(work: Pass) -> Path:
    """Write a pass down for others to join, in one atomic file; the manifest must be saved already.

    Returns
    -------
    pathlib.Path
        The file.
    """
    described = {
        "first": work.first,
        "source": work.source,
        "summary": asdict(work.summary),
        "listed": work.listed,
    }
    table = work.fresh.replace_schema_metadata({_KEY: json.dumps(described).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    path = _plan_path(work.folder)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, sink.getvalue())
    return path


def load_pass(folder: Path) -> Pass | None:
    """Read the pass that is under way in a cache; its rows are mapped, not read into memory.

    Returns
    -------
    Pass or None
        With the jobs that are not recorded yet; None if no pass was written down.

    Raises
    ------
    Img2PromptError
        If what was written down is damaged or does not fit the cache.
    """
    path = _plan_path(folder)
    if not path.exists():
        return None
    manifest = load_manifest(folder)
    try:
        fresh = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        fresh.validate(full=True)
        described: dict[str, Any] = json.loads((fresh.schema.metadata or {})[_KEY])
        first, source = int(described["first"]), int(described["source"])
        summary = Summary(**{**described["summary"], "notes": tuple(described["summary"]["notes"])})
        listed = str(described["listed"])
        left = first + len(fresh) - manifest.rows
        if tuple(fresh.column_names[:3]) != COLUMNS or not 0 <= left <= len(fresh):
            raise ValueError("it does not fit the cache")
        manifest.sources[source]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Img2PromptError(
            f"{path} is not the plan of a pass over this cache ({error}); delete {path.parent} and start the "
            "pass again"
        ) from None
    return Pass(
        folder=folder,
        manifest=manifest,
        fresh=fresh,
        first=first,
        source=source,
        summary=summary,
        jobs=tuple(find_jobs(folder, manifest, left, source)),
        listed=listed,
        sources=OpenSources(manifest.sources),
    )


def _plan_path(folder: Path) -> Path:
    home = folder / HOME
    if home.is_symlink():
        raise Img2PromptError(
            f"{home} is a link, and what a pass leaves must lie in the cache's folder; delete it"
        )
    return home / PLAN


def stage(work: Pass, job: Job, compute: Callable[[Path], list[tuple[Column, Part]]]) -> None:
    """Compute a job and leave it for the process that records the pass.

    Parameters
    ----------
    work : Pass
    job : Job
    compute : callable
        Writes the parts of the job below the folder it is given, and returns what it wrote.
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
    """Whether a job is finished and waits to be recorded, or needs no worker."""
    return not image_columns(job) or (staged_path(work, job) / _RECORD).exists()


def adopt(work: Pass, job: Job) -> list[tuple[Column, Part]] | None:
    """Check the finished parts of a job and move them to where the manifest wants them.

    Adopting again what was moved but not recorded is fine.

    Returns
    -------
    list of (Column, Part) or None
        What to record; None if the job is not finished.

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
            _require_whole(staged if staged.exists() else final, column, part)
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
    """Name the folder of a finished job, with a digest of everything its parts were computed from."""
    depends = {
        "columns": [(c.folder, c.shape, c.dtype, c.fingerprint, c.cache) for c in image_columns(job)],
        "schema": PART_SCHEMA,
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
    size, sha256 = int(entry["bytes"]), str(entry["sha256"])
    return Part(name, job.start, job.stop, size, sha256, missing, source, schema=PART_SCHEMA)


def _require_whole(path: Path, column: Column, part: Part) -> None:
    if path.is_symlink() or path.stat().st_size != part.bytes or hash_file(path) != part.sha256:
        raise ValueError(f"{part.file} has changed")
    with path.open("rb") as file:
        why = recorded_identity(column, part).differs(file.read(BYTES))
    if why:
        raise ValueError(f"{part.file}: {why}")
