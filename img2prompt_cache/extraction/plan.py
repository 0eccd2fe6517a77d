"""What a pass has to do: the rows that are new, the parts that are missing, and the room they take."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from img2prompt_cache.cache.manifest import MANY_PARTS, MOST_PART_ROWS, Column, Manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.virtual import read_notes
from img2prompt_cache.cache.writer import open_manifest
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.changes import Changes
from img2prompt_cache.extraction.comparison import find_changes
from img2prompt_cache.extraction.grouping_column import add_grouping_column, as_target
from img2prompt_cache.extraction.listing import (
    digest_of,
    digest_of_stamps,
    extra_columns,
    match_rows,
    most_further,
)
from img2prompt_cache.extraction.report import Plan
from img2prompt_cache.extraction.request import ExtractConfig, backbones_of, choose_columns, describe_choice
from img2prompt_cache.extraction.stamps import OUTDATED, list_stamps, load_stamps
from img2prompt_cache.extraction.work import Job, OpenSources, Pass
from img2prompt_cache.models.loader import Models
from img2prompt_cache.progress import Callback, ignore, note
from img2prompt_cache.sources.named import find_recorded
from img2prompt_cache.sources.several import MORE_PROMPTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Listing, Source

BATCH_SIZE = 32
PART_ROWS = 1024
_TEXT_BYTES_PER_ROW = 320


def prepare(
    folder: Path,
    source: Source,
    listing: Listing,
    config: ExtractConfig,
    tell: Callback = ignore,
    *,
    load: bool = True,
) -> tuple[Pass, Models]:
    """Settle what a pass has to do, with every column that is wanted declared.

    Parameters
    ----------
    folder, source, config, tell
        As for `run_pass`. The cache must be locked, unless this is only to be shown.
    listing : Listing
        Of the source.
    load : bool
        Whether the models of new columns are loaded, without which only the names of these are known.

    Returns
    -------
    Pass
        Its manifest is not saved yet.
    Models
        Those of new columns are loaded.
    """
    pa.default_memory_pool().release_unused()  # Arrow would keep what listing took
    manifest = open_manifest(folder)
    new = manifest is None
    models = config.make_models(new=new)
    if manifest is None:
        backbones, encoder, preset = choose_columns(config)
        encoders: tuple[str, ...] = (encoder,)
        if preset is not None:
            note(tell, describe_choice(config, backbones, encoder, preset))
        manifest = _empty(config, listing, preset)
    else:
        backbones = config.backbones or backbones_of(manifest)
        known = tuple(c.current or c.spec for c in manifest.of_kind("targets"))
        encoders = (config.encoder,) if config.encoder else known
    manifest, number = _with_source(manifest, source, tell)
    digest = digest_of(listing.table)
    manifest = manifest.identified(digest[-32:])
    stamps = list_stamps(source, listing.table)
    found = _compare(folder, manifest, listing, digest, stamps, number, source, config, tell)
    for line in found.changes.lines(planned=not load):
        note(tell, line)
    fresh = listing.table.filter(pa.array(found.fresh)) if not found.fresh.all() else listing.table
    all_rows = config.update or len(found.changes.new_further)
    further = _most_further(folder, manifest, listing.table if all_rows else fresh)
    if load:
        images = manifest.rows + len(fresh) if config.here else 0
        manifest = models.declare(manifest, backbones, encoders, tell, further=further, images=images)
    else:
        manifest = models.outline(manifest, backbones, encoders, further=further)
    if new:
        manifest = add_grouping_column(manifest, models, tell, further=further, load=load)
    elif config.encoder:
        manifest = as_target(manifest, config.encoder)
    work = Pass(
        folder=folder,
        manifest=manifest,
        fresh=fresh,
        first=manifest.rows,
        source=number,
        summary=listing.summary,
        jobs=tuple(find_jobs(folder, manifest, len(fresh), number)),
        listed=found.digest if found.changes.all_taken_in else "",
        sources=OpenSources(manifest.sources, {number: source}),
        changes=found.changes,
        stamps=found.stamps,
    )
    return work, models


def _most_further(folder: Path, manifest: Manifest, table: pa.Table) -> int:
    """Find how many further prompts a row has at most, of those to be listed and those that are cached."""
    known = [table[MORE_PROMPTS]] if MORE_PROMPTS in table.column_names else []
    if manifest.rows and MORE_PROMPTS in manifest.extra:
        known.append(Cache(folder).table(MORE_PROMPTS)[MORE_PROMPTS])
    return max(map(most_further, known), default=0)


def _empty(config: ExtractConfig, listing: Listing, preset: dict[str, str] | None) -> Manifest:
    return Manifest(
        part_rows=config.part_rows or choose_part_rows(len(listing.table), PART_ROWS),
        batch_size=config.batch_size or BATCH_SIZE,
        columns=(Column("rows", "", "rows", (), "text", {}),),
        preset=preset,
        extra=extra_columns(listing.table),
    )


def _with_source(manifest: Manifest, source: Source, tell: Callback) -> tuple[Manifest, int]:
    """Find the source among those of the cache, or add it; give its number."""
    entry = {**source.settings, "root": str(source.root.resolve())}
    number = find_recorded(manifest.sources, source.root, source.settings.get("name", ""))
    if number is None:
        return replace(manifest, sources=(*manifest.sources, entry)), len(manifest.sources)
    before = manifest.sources[number]["root"]
    if before != entry["root"]:
        note(tell, f"the source {before} is taken to have moved to {entry['root']}")
    sources = (*manifest.sources[:number], entry, *manifest.sources[number + 1 :])
    return replace(manifest, sources=sources), number


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """A listing compared with a cache: which rows are new, what has changed, and the stamps of all rows."""

    fresh: NDArray[np.bool_]
    changes: Changes
    stamps: NDArray[np.int64]
    digest: str


def _compare(
    folder: Path,
    manifest: Manifest,
    listing: Listing,
    digest: str,
    stamps: NDArray[np.int64],
    number: int,
    source: Source,
    config: ExtractConfig,
    tell: Callback,
) -> _Compared:
    table, digest = listing.table, f"{digest}-{digest_of_stamps(stamps)}"
    if not manifest.rows:
        return _Compared(np.ones(len(table), bool), Changes(updated=config.update), stamps, digest)
    cache = Cache(folder)
    cache.require_undamaged([manifest.columns[0]])
    kept = load_stamps(folder, manifest.rows)
    known_digest = (read_notes(folder) or {}).get("listed")
    if known_digest == [number, digest] and not config.check:
        return _Compared(np.zeros(len(table), bool), Changes(updated=config.update), kept, digest)
    parts = manifest.columns[0].parts
    origin = np.repeat([part.source for part in parts], [part.stop - part.start for part in parts])
    cached = cache.table("imgId", "uri")
    known = match_rows(
        table,
        cached["imgId"],
        origin,
        number,
        uris=None if getattr(source, "packed", False) else cached["uri"],
    )
    changes = find_changes(
        cache,
        table,
        known,
        stamps,
        kept,
        source,
        update=config.update,
        check=config.check,
        retrying=config.retry_failed,
        tell=tell,
    )
    new = kept.copy()
    new[known.rows] = stamps[known.listed]
    new[changes.unsettled] = OUTDATED
    return _Compared(known.fresh, changes, np.concatenate([new, stamps[known.fresh]]), digest)


def find_jobs(folder: Path, manifest: Manifest, fresh: int, source: int) -> list[Job]:
    """List the parts that are missing, in order.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder, to see whether a recorded file is still there.
    manifest : Manifest
        As it stands, with every column that is wanted.
    fresh : int
        How many rows are to be added.
    source : int
        Which source they come from.
    """
    rows = manifest.columns[0]
    edges = [(part.start, part.stop, part.source) for part in rows.parts]
    stop = manifest.rows + fresh  # the same wherever a pass was interrupted
    size = choose_part_rows(stop, manifest.part_rows)
    for start in range(manifest.rows, stop, size):
        edges.append((start, min(start + size, stop), source))
    jobs = []
    for number, (start, stop, origin) in enumerate(edges):
        lacking = tuple(c for c in manifest.columns if not _has_part(folder, c, number))
        if lacking:
            jobs.append(Job(number, start, stop, origin, lacking))
    return jobs


def _has_part(folder: Path, column: Column, number: int) -> bool:
    if number >= len(column.parts):
        return False
    part = column.parts[number]
    try:
        return (folder / part.file).stat().st_size == part.bytes
    except OSError:
        return False


def choose_part_rows(rows: int, least: int) -> int:
    """Choose how many rows a part has: `least`, doubled until `MANY_PARTS` parts hold all rows of a cache."""
    size = least
    while size * MANY_PARTS < rows and size < MOST_PART_ROWS:
        size *= 2
    return size


def plan_of(work: Pass) -> Plan:
    """Say what a pass is going to do."""
    return Plan(
        rows=work.first + len(work.fresh),
        fresh=len(work.fresh),
        work=sum(job.stop - job.start for job in work.jobs),
        columns=tuple(dict.fromkeys(column.folder for job in work.jobs for column in job.columns)),
        bytes=bytes_needed(work.jobs),
        summary=work.summary,
        changes=work.changes,
    )


def bytes_needed(jobs: Iterable[Job]) -> int:
    """Estimate the bytes of the parts to be written, from above for numbers and by experience for text."""
    total = 0
    for job in jobs:
        for column in job.columns:
            each = _TEXT_BYTES_PER_ROW if column.dtype == "text" else 0
            for shape, dtype in column.datasets.values():
                each += int(np.prod(shape)) * np.dtype(dtype).itemsize
            total += (job.stop - job.start) * each + 4096
    return total


def require_room(folder: Path, plan: Plan) -> None:
    """Refuse to begin what cannot end.

    Raises
    ------
    Img2PromptError
        If the disk has less room than the new parts take.
    """
    free = shutil.disk_usage(folder).free
    if plan.bytes > free:
        raise Img2PromptError(
            f"{folder} needs about {plan.bytes / 1e6:,.1f} MB more, and the disk has {free / 1e6:,.1f} MB "
            "left; make room or name another folder with `cache`"
        )
