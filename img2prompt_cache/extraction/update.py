"""Changes of a source taken into the rows that are cached: values of the table, prompts, images.

A part that changes is written under a new name; it is recorded together with everything that belongs to it,
and only then the old file is removed. So rows, features and targets fit each other whenever the process is
killed, and the next pass finds what is left to do by the same comparison.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa

from img2prompt_cache.cache.identity import recorded_identity
from img2prompt_cache.cache.manifest import Column, Manifest, Part, part_file, revision_of, row_dataset
from img2prompt_cache.cache.mapped import MappedColumn
from img2prompt_cache.cache.part_text import read_text
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.reader import OK, REMOVED, Cache
from img2prompt_cache.cache.writer import RECOMPUTED, commit
from img2prompt_cache.extraction.changes import Change
from img2prompt_cache.extraction.plan import find_jobs
from img2prompt_cache.extraction.recompute import Recompute, keep_only, read_rows
from img2prompt_cache.extraction.retry import revise_part
from img2prompt_cache.extraction.targets import CachedTargets, TargetWorker, first_occurrences
from img2prompt_cache.extraction.work import Pass, Slice
from img2prompt_cache.files import sync_folder
from img2prompt_cache.progress import Callback, ignore, task
from img2prompt_cache.sources.several import MORE_PROMPTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.loader import Models

_Texts: TypeAlias = dict[str, dict[int, str]]
"""New values by the name of a text column and the row."""
_GONE = "the image is no longer in the source"


def take_in(work: Pass, models: Models, tell: Callback = ignore) -> Pass:
    """Bring the cached rows of a pass up to date with its source, before new ones are added.

    Values of the user's own columns and prompts of images that had none are always taken over; other prompts
    and images only if the pass updates.

    Parameters
    ----------
    work : Pass
        Of a locked cache.
    models : Models
    tell : callable
        Takes the steps of the task ``"update"``: images that are encoded again.

    Returns
    -------
    Pass
        With the manifest as saved, and the jobs that are left.

    Raises
    ------
    Img2PromptError
        If a part that would be copied from is damaged.
    """
    changes, manifest = work.changes, work.manifest
    texts = {name: _by_row(change) for name, change in changes.columns.items()}
    texts["uri"] = _by_row(changes.moved)
    if changes.updated and changes.contents:
        manifest = replace(manifest, updates=(*manifest.updates, _entry(changes.contents)))
        texts["status"] = dict.fromkeys(changes.removed.rows.tolist(), REMOVED)
        texts["reason"] = dict.fromkeys(changes.removed.rows.tolist(), _GONE)
    parts = [*_revise_rows(work.folder, manifest, texts, changes.added)]
    if parts or changes.added:
        manifest = commit(work.folder, replace(manifest, extra=(*manifest.extra, *changes.added)), parts)
    prompts, further = [changes.new_prompts], [changes.new_further]
    if changes.updated:
        prompts, further = [*prompts, changes.prompts], [*further, changes.more_prompts]
    try:
        if any(map(len, (*prompts, *further))):
            manifest = _update_prompts(work.folder, manifest, prompts, further, models)
        if changes.updated:
            recompute = Recompute(work.folder, models, work.sources)
            manifest = _update_images(manifest, (changes.images, changes.returned), recompute, tell)
    finally:
        shutil.rmtree(work.folder / RECOMPUTED, ignore_errors=True)
    jobs = tuple(find_jobs(work.folder, manifest, len(work.fresh), work.source))
    return replace(work, manifest=manifest, jobs=jobs)


def _entry(contents: dict[str, Change]) -> dict[str, str]:
    said = {
        "images": "images changed",
        "prompts": "prompts changed",
        "more_prompts": "images with other further prompts",
        "removed": "removed",
        "returned": "back",
    }
    changed = ", ".join(f"{len(change)} {said[name]}" for name, change in contents.items())
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "changed": changed}


def _by_row(change: Change) -> dict[int, str]:
    return dict(zip(change.rows.tolist(), change.now, strict=True))


def _all_by_row(changes: Iterable[Change]) -> dict[int, str]:
    return {row: text for change in changes for row, text in _by_row(change).items()}


def _revise_rows(
    folder: Path, manifest: Manifest, texts: _Texts, added: tuple[str, ...] = ()
) -> Iterator[tuple[Column, Part]]:
    """Write the next revision of every part of `rows` that changes; an added column changes all."""
    column = manifest.columns[0]
    names = [*manifest.row_datasets, *added]
    starts = np.array([part.start for part in column.parts], np.int64)
    rows = np.array(sorted({row for values in texts.values() for row in values}), np.int64)
    touched = {*np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist()}
    for number in range(len(column.parts)) if added else sorted(touched):
        part = column.parts[number]
        text = read_rows(folder, manifest, number)
        for name in names:
            new = texts.get(name, {})
            old = text.get(name) or [""] * (part.stop - part.start)
            text[name] = [new.get(row, value) for row, value in enumerate(old, part.start)]
        file = part_file(column.folder, number, revision_of(part.file) + 1)
        with PartFile(folder / file, recorded_identity(column, part)) as out:
            for name in sorted(names, key=row_dataset):
                out.write_text(row_dataset(name), text[name])
            size, sha256 = out.commit()
        yield column, replace(part, file=file, bytes=size, sha256=sha256)


def _update_prompts(
    folder: Path,
    manifest: Manifest,
    prompts: Sequence[Change],
    further_prompts: Sequence[Change],
    models: Models,
) -> Manifest:
    """Take over prompts, with all targets that depend on them, in one commit.

    A target is copied from the first row with the same prompt, and what is encoded together decides its last
    bit. So every part is made again in which a prompt, a first row, or what is copied from one has changed:
    afterwards the targets are those of a cache that was made of these prompts, bit for bit.
    """
    texts = {"prompt": _all_by_row(prompts)}
    if MORE_PROMPTS in manifest.extra:
        texts[MORE_PROMPTS] = _all_by_row(further_prompts)
    cached = Cache(folder).table(*texts)
    new = {name: cached[name].to_pylist() for name in texts}
    for name, by_row in texts.items():
        for row, text in by_row.items():
            new[name][row] = text
    before, now = cached["prompt"].to_pylist(), new["prompt"]
    was, first = (first_occurrences(pa.chunked_array([each], pa.large_string())) for each in (before, now))
    has = np.array([bool(prompt.strip()) for prompt in now], bool)
    differs = has & (was != first)
    differs[[*texts["prompt"]]] = True
    parts = [*_revise_rows(folder, manifest, texts)]
    further = np.zeros(len(now), bool)
    further[[*texts.get(MORE_PROMPTS, ())]] = True
    for column in (column for column in manifest.columns if column.from_prompts):
        # Embeddings of further prompts are not copied from other rows.
        changed, copied = (differs, has) if column.kind == "targets" else (further, np.zeros(len(now), bool))
        worker, encoder = TargetWorker(CachedTargets(folder), first), None
        stops = np.array([part.stop for part in column.parts], np.int64)
        made: set[int] = set()
        for number, part in enumerate(column.parts):
            rows = slice(part.start, part.stop)
            sources = np.searchsorted(stops, first[rows][copied[rows]], side="right")
            if not changed[rows].any() and made.isdisjoint(sources.tolist()):
                continue
            made.add(number)
            encoder = encoder or models.encoder(column)
            piece = {"imgId": now[rows], **{name: values[rows] for name, values in new.items()}}
            done = worker.compute(
                Slice(number, part.start, piece),
                column,
                encoder,
                folder / RECOMPUTED,
                part.schema,
                part.joins,
            )
            file = part_file(column.folder, number, revision_of(part.file) + 1)
            (folder / RECOMPUTED / done.file).replace(folder / file)
            sync_folder((folder / file).parent)
            revised = replace(done, file=file, joins=part.joins)
            parts.append((column, revised))
            column = replace(column, parts=(*column.parts[:number], revised, *column.parts[number + 1 :]))
    return commit(folder, manifest, parts)


def _update_images(
    manifest: Manifest, changes: Iterable[Change], recompute: Recompute, tell: Callback
) -> Manifest:
    """Encode images again, part by part."""
    uris = {row: uri for change in changes for row, uri in _by_row(change).items()}
    stops = np.array([part.stop for part in manifest.columns[0].parts], np.int64)
    rows: NDArray[np.int64] = np.array(sorted(uris), np.int64)
    numbers = np.searchsorted(stops, rows, side="right")
    if not len(rows):
        return manifest
    with task(tell, "update", len(rows)) as advance:
        for number in np.unique(numbers).tolist():
            inside = rows[numbers == number].tolist()
            revised = _encode_again(manifest, number, {row: uris[row] for row in inside}, recompute)
            manifest = commit(recompute.folder, manifest, revised)
            shutil.rmtree(recompute.folder / RECOMPUTED, ignore_errors=True)
            advance(len(inside))
    return manifest


def _encode_again(
    manifest: Manifest, number: int, uris: dict[int, str], recompute: Recompute
) -> list[tuple[Column, Part]]:
    """Compute rows of a part anew, whatever their images are now; all others stay bit for bit."""
    folder, start = recompute.folder, manifest.columns[0].parts[number].start
    text = read_rows(folder, manifest, number)
    for row, uri in uris.items():
        text["uri"][row - start] = uri
    columns = [
        column for column in manifest.columns if column.kind != "targets" and number < len(column.parts)
    ]
    place = folder / RECOMPUTED / "update"
    slice_ = keep_only(manifest, number, text, uris, changed=True)
    done = recompute.compute(manifest, slice_, columns, place)
    status = read_text(place / done["rows"].file, ["status"], len(slice_))["status"]
    good = tuple(row for row in uris if status[row - start] == OK)
    revised = []
    for column in columns:
        old = column.parts[number]
        new = revise_part(
            folder, manifest, number, old, column, place / done[column.folder].file, tuple(uris)
        )
        late = {row for rows in old.retried for row in rows}
        replaced = {row for row in uris if row not in late and _was_encoded(folder, column, row)}
        retried = (*old.retried, good) if good else old.retried
        new = replace(new, retried=retried, replaced=tuple(sorted({*old.replaced, *replaced})))
        revised.append((column, new))
    return revised


def _was_encoded(folder: Path, column: Column, row: int) -> bool:
    return column.kind != "rows" and bool(np.isfinite(MappedColumn(folder, column)[np.array([row])]).any())
