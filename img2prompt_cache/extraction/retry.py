"""Retry: rows that failed are read once more; what was good stays as it is, bit for bit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from img2prompt_cache.cache.damage import require_undamaged
from img2prompt_cache.cache.manifest import Column, Manifest, Part, part_file, revision_of
from img2prompt_cache.cache.part_text import read_rows_part, read_text
from img2prompt_cache.cache.reader import FAILED, OK
from img2prompt_cache.cache.rewriting import patch_part
from img2prompt_cache.cache.writer import RECOMPUTED, commit
from img2prompt_cache.extraction.recompute import Recompute, keep_only, read_rows, texts_of
from img2prompt_cache.progress import Callback, ignore, note
from img2prompt_cache.tables import counted


def find_retries(folder: Path, manifest: Manifest) -> dict[int, int]:
    """Find the parts that hold a row that failed, or one that a column could not compute.

    Returns
    -------
    dict of int to int
        Part number to how many of its rows are to be tried again.
    """
    found = {}
    for number, part in enumerate(manifest.columns[0].parts):
        status = read_rows_part(folder, manifest.columns[0], part, ["status"])["status"]
        missing = {row for rows in _missing(manifest, number) for row in rows}
        found[number] = status.count(FAILED) + len(missing)
    return {number: rows for number, rows in found.items() if rows}


def _missing(manifest: Manifest, number: int) -> dict[tuple[int, ...], list[Column]]:
    """Group the columns that lack rows of a part by the rows they lack."""
    found: dict[tuple[int, ...], list[Column]] = {}
    for column in manifest.columns:
        if number < len(column.parts) and column.parts[number].missing:
            found.setdefault(column.parts[number].missing, []).append(column)
    return found


def retry(manifest: Manifest, recompute: Recompute, tell: Callback = ignore) -> Manifest:
    """Read the rows that failed again and fill in those that are good now.

    A part that changes is written under a new name and recorded together with the others of its rows; then
    the old file is removed.

    Parameters
    ----------
    manifest : Manifest
        Of a locked cache.
    recompute : Recompute
    tell : callable
        Takes notes: how many rows there are, and how many are good now.

    Returns
    -------
    Manifest
        As saved.

    Raises
    ------
    Img2PromptError
        If a part that would be copied from is damaged.
    """
    found = find_retries(recompute.folder, manifest)
    if not found:
        note(tell, "no row failed, so there is none to try again")
        return manifest
    note(
        tell,
        f"trying {counted(sum(found.values()), 'row', 'rows')} in {counted(len(found), 'part', 'parts')} "
        "again",
    )
    for number in found:
        try:
            revised = _retry(manifest, number, recompute)
            if revised:
                manifest = commit(recompute.folder, manifest, revised)
        finally:
            shutil.rmtree(recompute.folder / RECOMPUTED, ignore_errors=True)
    left = sum(find_retries(recompute.folder, manifest).values())
    note(tell, f"{counted(sum(found.values()) - left, 'of them is', 'of them are')} good now")
    return manifest


def _retry(manifest: Manifest, number: int, recompute: Recompute) -> list[tuple[Column, Part]]:
    place = recompute.folder / RECOMPUTED
    text = read_rows(recompute.folder, manifest, number)
    first = manifest.columns[0].parts[number].start
    failed = [first + i for i, status in enumerate(text["status"]) if status == FAILED]
    revised: dict[str, Part] = {}
    if failed:
        columns = [c for c in manifest.columns if not c.from_prompts and number < len(c.parts)]
        rows = keep_only(manifest, number, text, failed, changed=True)
        done = recompute.compute(manifest, rows, columns, place / "failed")
        status = read_text(place / "failed" / done["rows"].file, ["status"], len(rows))["status"]
        good = tuple(first + i for i, now in enumerate(status) if now == OK)
        for column in columns if good else ():
            made = place / "failed" / done[column.folder].file
            revised[column.folder] = revise_part(
                recompute.folder, manifest, number, column.parts[number], column, made, good
            )
    for group, (missing, columns) in enumerate(_missing(manifest, number).items()):
        into = place / f"missing-{group}"
        done = recompute.compute(manifest, keep_only(manifest, number, text, missing), columns, into)
        for column in columns:
            good = tuple(row for row in missing if row not in done[column.folder].missing)
            if good:
                part = revised.get(column.folder, column.parts[number])
                made = into / done[column.folder].file
                revised[column.folder] = revise_part(
                    recompute.folder, manifest, number, part, column, made, good
                )
    return [(column, revised[column.folder]) for column in manifest.columns if column.folder in revised]


def revise_part(
    folder: Path,
    manifest: Manifest,
    number: int,
    part: Part,
    column: Column,
    made: Path,
    good: tuple[int, ...],
) -> Part:
    """Write the next revision of a part, with the rows `good` taken from the part just `made`."""
    require_undamaged(folder, column, [part])
    file = part_file(column.folder, number, revision_of(part.file) + 1)
    size, sha256 = patch_part(
        column,
        texts_of(manifest, column),
        folder / part.file,
        [(made, [row - part.start for row in good])],
        folder / file,
        rows=(part.start, part.stop),
        schema=part.schema,
    )
    missing = tuple(row for row in part.missing if row not in good)
    retried = (*part.retried, good)
    return replace(part, file=file, bytes=size, sha256=sha256, missing=missing, retried=retried)
