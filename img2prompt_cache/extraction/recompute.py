"""Cached rows computed once more, and which of them are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.cache.manifest import Column, Manifest, Part, part_file
from img2prompt_cache.cache.part_text import read_rows_part
from img2prompt_cache.cache.reader import FAILED, OK
from img2prompt_cache.cache.rewriting import join_parts
from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.work import OpenSources, Slice

if TYPE_CHECKING:
    from img2prompt_cache.models.loader import Models


@dataclass(frozen=True, slots=True)
class Recompute:
    """Computes rows of parts that are cached already once more.

    Attributes
    ----------
    folder : pathlib.Path
        The cache's folder.
    models : Models
    sources : OpenSources
        Those of the manifest.
    """

    folder: Path
    models: Models
    sources: OpenSources

    def compute(self, manifest: Manifest, rows: Slice, columns: list[Column], into: Path) -> dict[str, Part]:
        """Compute columns of the part that `rows` belong to, below `into`.

        Returns
        -------
        dict of str to Part
            What was written, by the column's folder.
        """
        groups: dict[tuple[tuple[int, ...], int], list[Column]] = {}
        for column in columns:
            part = column.parts[rows.number]
            groups.setdefault((part.joins, part.schema), []).append(column)
        done: dict[str, Part] = {}
        for (joins, schema), same in groups.items():
            if joins:
                done |= self._compute_joined(manifest, rows, same, into, joins, schema)
            else:
                done |= self._compute(manifest, rows, same, into, schema)
        return done

    def _compute(
        self, manifest: Manifest, rows: Slice, columns: list[Column], into: Path, schema: int
    ) -> dict[str, Part]:
        source = self.sources[manifest.columns[0].parts[rows.number].source]
        worker = Worker(self.models.backbone, manifest.batch_size)
        return {column.folder: part for column, part in worker.compute(rows, columns, source, into, schema)}

    def _compute_joined(
        self,
        manifest: Manifest,
        rows: Slice,
        columns: list[Column],
        into: Path,
        joins: tuple[int, ...],
        schema: int,
    ) -> dict[str, Part]:
        """Compute the parts that were joined, with whose edges batches ended, and join them again."""
        stop = rows.start + len(rows)
        made = []
        for low, high in zip((rows.start, *joins), (*joins, stop), strict=True):
            text = {name: values[low - rows.start : high - rows.start] for name, values in rows.text.items()}
            place = into / f"from-{low}"
            piece = Slice(rows.number, low, text)
            made.append((place, self._compute(manifest, piece, columns, place, 1)))
        done = {}
        for column in columns:
            parts = [parts[column.folder] for _, parts in made]
            pieces = [(place / parts[column.folder].file, parts[column.folder]) for place, parts in made]
            file = part_file(column.folder, rows.number)
            size, sha256 = join_parts(
                column,
                texts_of(manifest, column),
                [(path, part.start, part.stop) for path, part in pieces],
                into / file,
                schema=schema,
            )
            missing = tuple(row for part in parts for row in part.missing)
            done[column.folder] = Part(file, rows.start, stop, size, sha256, missing, schema=schema)
        return done


def texts_of(manifest: Manifest, column: Column) -> list[str]:
    """Name the datasets of text in the parts of a column."""
    return list(manifest.row_datasets.values()) if column.kind == "rows" else []


def read_rows(folder: Path, manifest: Manifest, number: int) -> dict[str, list[str]]:
    """Read everything a part of `rows` says, by the names of `ROW_COLUMNS` and of the user's own columns."""
    rows = manifest.columns[0]
    found = read_rows_part(folder, rows, rows.parts[number], list(manifest.row_datasets.values()))
    return {name: found[dataset] for name, dataset in manifest.row_datasets.items()}


def keep_only(
    manifest: Manifest, number: int, text: dict[str, list[str]], rows: Iterable[int], *, changed: bool = False
) -> Slice:
    """Take a part's rows, of which only `rows` are read and encoded; the others count as failed.

    All rows of the part are in the slice, so batches begin and end where they always do.

    Parameters
    ----------
    manifest : Manifest
    number : int
        The part.
    text : dict of str to list of str
        From `read_rows`.
    rows : iterable of int
        Row numbers in the cache.
    changed : bool
        Take whatever bytes these images have now, not only those that were cached.
    """
    start = manifest.columns[0].parts[number].start
    wanted = {row - start for row in rows}
    status = [OK if i in wanted else FAILED for i in range(len(text["imgId"]))]
    sha256 = ["" if changed and i in wanted else known for i, known in enumerate(text["sha256"])]
    return Slice(number, start, {**text, "status": status, "sha256": sha256})
