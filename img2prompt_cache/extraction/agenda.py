"""The agenda of a pass: its source among those of the cache, rows that are new, columns that are wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from img2prompt_cache.cache.manifest import Column, Manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.virtual import recall
from img2prompt_cache.cache.writer import open_manifest
from img2prompt_cache.extraction.passes import Pass
from img2prompt_cache.extraction.plan import choose_part_rows, digest_of, extra_columns, find_jobs, fresh_rows
from img2prompt_cache.extraction.report import Watcher
from img2prompt_cache.extraction.request import ExtractConfig, backbones_of, choose_columns
from img2prompt_cache.models.loader import Models

if TYPE_CHECKING:
    from img2prompt_cache.sources.base import Listing, Source

BATCH_SIZE = 32


def prepare(
    folder: Path, source: Source, listing: Listing, config: ExtractConfig, watcher: Watcher
) -> tuple[Pass, Models]:
    """Settle what a pass has to do, with every column that is wanted declared.

    Parameters
    ----------
    folder, source, config, watcher
        As for `extract`. The cache must be locked.
    listing : Listing
        Of the source.

    Returns
    -------
    Pass
        Its manifest is not saved yet.
    Models
        Those of new columns are loaded.
    """
    pa.default_memory_pool().release_unused()  # Arrow would keep what listing took
    manifest = open_manifest(folder)
    if manifest is None:
        backbones, encoder, preset = choose_columns(config)
        encoders: tuple[str, ...] = (encoder,)
        manifest = _empty(config, listing, preset, watcher)
    else:
        backbones = config.backbones or backbones_of(manifest)
        known = tuple(c.spec for c in manifest.of_kind("targets"))
        encoders = (config.encoder,) if config.encoder else known
    manifest, number = _with_source(manifest, source, watcher)
    fresh, listed = _fresh(folder, manifest, listing, number, watcher)
    models = config.make_models()
    manifest = models.declare(manifest, backbones, encoders, lambda event: watcher.note(event.message))
    jobs = tuple(find_jobs(folder, manifest, len(fresh), number))
    work = Pass(
        folder, manifest, fresh, manifest.rows, number, listing.summary, jobs, listed, {number: source}
    )
    return work, models


def _empty(
    config: ExtractConfig, listing: Listing, preset: dict[str, str] | None, watcher: Watcher
) -> Manifest:
    if preset is not None:
        watcher.note(f"preset {preset['name']}: {preset['reason']}")
    return Manifest(
        part_rows=config.part_rows or choose_part_rows(len(listing.table)),
        batch_size=config.batch_size or BATCH_SIZE,
        columns=(Column("rows", "", "rows", (), "text", {}),),
        preset=preset,
        extra=extra_columns(listing.table),
    )


def _with_source(manifest: Manifest, source: Source, watcher: Watcher) -> tuple[Manifest, int]:
    """Find the source among those of the cache, or add it; give its number."""
    entry = {**source.settings, "root": str(source.root.resolve())}
    roots = [known["root"] for known in manifest.sources]
    number = roots.index(entry["root"]) if entry["root"] in roots else None
    if number is None:
        moved = [
            i
            for i, root in enumerate(roots)
            if Path(root).name == source.root.name and not Path(root).exists()
        ]
        if len(moved) == 1:
            number = moved[0]
            watcher.note(f"the source {roots[number]} is taken to have moved to {entry['root']}")
    if number is None:
        return replace(manifest, sources=(*manifest.sources, entry)), len(manifest.sources)
    sources = (*manifest.sources[:number], entry, *manifest.sources[number + 1 :])
    return replace(manifest, sources=sources), number


def _fresh(
    folder: Path, manifest: Manifest, listing: Listing, number: int, watcher: Watcher
) -> tuple[pa.Table, str]:
    """The rows of the listing that are not cached yet, and its digest unless prompts have changed."""
    listed = digest_of(listing.table)
    if not manifest.rows:
        return listing.table, listed
    cache = Cache(folder)
    cache.require_undamaged([manifest.columns[0]])
    if (recall(folder) or {}).get("listed") == [number, listed]:
        return listing.table[:0], listed
    parts = manifest.columns[0].parts
    origin = np.repeat([part.source for part in parts], [part.stop - part.start for part in parts])
    fresh, changed = fresh_rows(listing.table, cache.table("imgId", "prompt"), origin, number)
    if changed:
        watcher.note(
            f"{changed} prompts read otherwise now than when they were cached; the cached ones stay, and a "
            "new cache (--cache) takes the new ones"
        )
    return fresh, "" if changed else listed
