"""Targets: the embeddings of every row's prompts, each distinct one encoded once."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.damage import require_undamaged
from img2prompt_cache.cache.identity import identity_of
from img2prompt_cache.cache.manifest import PART_SCHEMA, Column, Part, part_file
from img2prompt_cache.cache.mapped import MappedColumn
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.sources.several import MORE_PROMPTS, unpack

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from img2prompt_cache.models.encoders.base import Encoder


def first_occurrences(prompts: pa.ChunkedArray) -> NDArray[np.int64]:
    """For every row, the first row with the same prompt: int64, shape (rows,)."""
    chunks = [chunk.indices.to_numpy() for chunk in prompts.dictionary_encode().chunks]
    codes = np.concatenate([np.empty(0, np.int32), *chunks])
    first = np.empty(codes.max(initial=-1) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # the last to be written is the first there is
    same: NDArray[np.int64] = first[codes]
    return same


def texts_of(rows: Slice, column: Column) -> list[str]:
    """List the prompts of which a column has embeddings; of a row without one, an empty text."""
    if column.kind == "targets":
        return rows.text["prompt"]
    return [text for texts in further_prompts(rows, column) for text in texts]


def further_prompts(rows: Slice, column: Column) -> list[list[str]]:
    """Give the prompts of each row but the first, as many as the column has room for."""
    packed = rows.text.get(MORE_PROMPTS) or [""] * len(rows)
    return [unpack(text)[: column.shape[0]] for text in packed]


@dataclass(frozen=True, slots=True)
class CachedTargets:
    """Reads what a cache holds; each part is checked against its hash before it is first used.

    Parameters
    ----------
    folder : pathlib.Path
        The cache's folder.
    """

    folder: Path
    _checked: set[str] = field(default_factory=set, init=False)

    def values(self, column: Column, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows of a numeric column: float32, shape (len(rows), *column.shape).

        Raises
        ------
        Img2PromptError
            If a part they lie in is damaged.
        """
        wanted = np.unique(np.searchsorted([part.stop for part in column.parts], rows, side="right"))
        parts = [column.parts[number] for number in wanted.tolist()]
        require_undamaged(self.folder, column, [part for part in parts if part.file not in self._checked])
        self._checked.update(part.file for part in parts)
        return MappedColumn(self.folder, column)[rows]


@dataclass(frozen=True, slots=True, eq=False)
class TargetWorker:
    """Encodes the prompts of a cache part by part.

    A first prompt that stood in an earlier part is copied from there, so what a part holds depends on the
    order of rows alone, not on where a pass was interrupted. Further prompts are rarely those of other rows:
    they are encoded anew in each part, which then depends on no other.

    Attributes
    ----------
    cached : CachedTargets
        Reads earlier parts.
    first : numpy.ndarray, int64, shape (rows of the cache,)
        From `first_occurrences`.
    clock : Clock
        Charged with the time.
    """

    cached: CachedTargets
    first: NDArray[np.int64]
    clock: Clock = field(default_factory=Clock)

    def compute(
        self,
        rows: Slice,
        column: Column,
        encoder: Encoder,
        folder: Path,
        schema: int = PART_SCHEMA,
        joins: tuple[int, ...] = (),
    ) -> Part:
        """Encode the prompts of one part and write them.

        Parameters
        ----------
        rows : Slice
            Those of the part. A row without a prompt gets NaN, and so does the room for further prompts that
            a row does not have.
        column : Column
            With every part before this one.
        encoder : Encoder
            Of the column.
        folder : pathlib.Path
            Where the part is written: the cache's folder, or another.
        schema, joins
            Of the part; see `Part`.

        Raises
        ------
        Img2PromptError
            If an earlier part that is copied from is damaged.
        """
        start, stop = rows.start, rows.start + len(rows)
        make = self._first if column.kind == "targets" else self._further
        values = make(rows, column, encoder, joins)
        name = part_file(column.folder, rows.number)
        with (
            self.clock.timed("write"),
            PartFile(folder / name, identity_of(column, start, stop, schema)) as file,
        ):
            file.create("values", values.shape, column.dtype)
            file.write("values", 0, values)
            size, sha256 = file.commit()
        return Part(name, start, stop, size, sha256, schema=schema)

    def _first(
        self, rows: Slice, column: Column, encoder: Encoder, joins: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Embed the first prompts: shape (rows, dim)."""
        prompts, start, stop = rows.text["prompt"], rows.start, rows.start + len(rows)
        values = np.full((len(rows), *column.shape), np.nan, np.float32)
        first = self.first[start:stop]
        here = first >= start
        has = np.array([bool(prompt.strip()) for prompt in prompts], bool)
        fresh = np.flatnonzero(has & (first == np.arange(start, stop)))
        with self.clock.timed(column.spec):
            for batch in np.split(fresh, np.searchsorted(fresh, [row - start for row in joins])):
                if len(batch):
                    values[batch] = encoder.encode([prompts[row] for row in batch])
        again = np.flatnonzero(has & here)
        values[again] = values[first[again] - start]
        before = np.flatnonzero(has & ~here)
        if len(before):
            values[before] = self.cached.values(column, first[before])
        return values

    def _further(
        self, rows: Slice, column: Column, encoder: Encoder, joins: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Embed the other prompts: shape (rows, most of a row, dim)."""
        values = np.full((len(rows), *column.shape), np.nan, np.float32)
        prompts = further_prompts(rows, column)
        edges = [0, *(row - rows.start for row in joins), len(rows)]
        with self.clock.timed(column.spec):
            for low, high in pairwise(edges):
                at = [(row, place) for row in range(low, high) for place in range(len(prompts[row]))]
                if at:
                    row_of, place_of = np.array(at).T
                    values[row_of, place_of] = encoder.encode([prompts[row][place] for row, place in at])
        return values
