"""The listing of a source, compared with the rows of a cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.cache.manifest import EXTRA_NAME, ROW_COLUMNS
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.sources import list_source, note_ignored_prompts
from img2prompt_cache.sources.clues import explain_missing_prompts
from img2prompt_cache.sources.several import MORE_PROMPTS, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Listing, Source

_OF_VALUES = "v2-"


def list_pairs(source: Source) -> tuple[Source, Listing]:
    """List a source that is to give pairs; see `sources.list_source`.

    Raises
    ------
    Img2PromptError
        If no image has a prompt, unless the source was named as images alone.
    UsageError
        As `Source.list`.
    """
    source, listing = list_source(source)
    format = source.settings.get("format", "")
    alone = format in ("folder", "paths") and not getattr(source, "detected", False)
    if alone and not listing.summary.pairs:
        notes = (*listing.summary.notes, *note_ignored_prompts(source))
        return source, replace(listing, summary=replace(listing.summary, notes=notes))
    if listing.summary.pairs:
        return source, listing
    settings = {"format": format, **source.settings}
    raise Img2PromptError(
        explain_missing_prompts(source.root, len(listing.table), settings, listing.summary.notes)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Which rows of a listing are cached already, and as which.

    Attributes
    ----------
    fresh : numpy.ndarray, bool, shape (listed rows,)
        Those that are not.
    listed, rows : numpy.ndarray, int64, shape (n,)
        For each that is: its number in the listing, and in the cache.
    of_source : numpy.ndarray, int64
        All rows of the cache that came from the source, ascending.
    renamed : int
        How many of the rows were cached under another imgId.
    """

    fresh: NDArray[np.bool_]
    listed: NDArray[np.int64]
    rows: NDArray[np.int64]
    of_source: NDArray[np.int64]
    renamed: int = 0


def match_rows(
    table: pa.Table,
    ids: pa.ChunkedArray,
    origin: NDArray[np.int64],
    source: int,
    uris: pa.ChunkedArray | None = None,
) -> Known:
    """Find the rows of a listing in a cache, by their imgId, or else by the file of their image.

    An image has another imgId than before where its source is read in another format: `a` by a table of
    the files in ``images/``, and ``images/a`` as one of a folder.

    Parameters
    ----------
    table : pyarrow.Table
        The listing.
    ids : pyarrow.ChunkedArray
        The `imgId` of every cached row.
    origin : numpy.ndarray, int64, shape (cached rows,)
        Which source each came from.
    source : int
        Which source was listed.
    uris : pyarrow.ChunkedArray, optional
        The `uri` of every cached row, if each is a file.

    Raises
    ------
    UsageError
        If an imgId is cached already from another source.
    """
    at = pc.index_in(table["imgId"], value_set=ids.cast(table.schema.field("imgId").type))
    fresh = pc.is_null(at).to_numpy()
    rows = at.drop_null().to_numpy().astype(np.int64)
    taken = rows[origin[rows] != source]
    if len(taken):
        img_id = ids[int(taken[0])].as_py()
        raise UsageError(
            f"imgId {img_id!r} is cached already from another source; name both sources in one call of "
            "`extract()`, or this one as NAME=PATH, which puts its name before its ids"
        )
    of_source = np.flatnonzero(origin == source)
    listed = np.flatnonzero(~fresh)
    left = np.setdiff1d(of_source, rows, assume_unique=True)
    if uris is None or not len(left) or not fresh.any():
        return Known(fresh, listed, rows, of_source)
    new = np.flatnonzero(fresh)
    places = uris.take(pa.array(left)).combine_chunks().cast(table.schema.field("uri").type)
    at = pc.index_in(table["uri"].take(pa.array(new)), value_set=places)
    found = pc.is_valid(at).to_numpy()
    by_place = left[at.drop_null().to_numpy().astype(np.int64)]
    fresh = fresh.copy()
    fresh[new[found]] = False
    listed, rows = np.concatenate([listed, new[found]]), np.concatenate([rows, by_place])
    order = np.argsort(listed)
    return Known(fresh, listed[order], rows[order], of_source, renamed=len(by_place))


def extra_columns(table: pa.Table) -> tuple[str, ...]:
    """Name the columns of the user's own table that can be kept under their names."""
    return tuple(
        name
        for name in table.column_names
        if name not in ROW_COLUMNS and EXTRA_NAME.fullmatch(name) is not None
    )


def most_further(packed: pa.ChunkedArray) -> int:
    """Find the largest number of prompts that a row has beside its first.

    Parameters
    ----------
    packed : pyarrow.ChunkedArray
        The column `several.MORE_PROMPTS` of a listing or a cache.
    """
    texts = packed.fill_null("")
    return max(map(len, map(unpack, texts.filter(pc.not_equal(texts, "")).to_pylist())), default=0)


def has_several(table: pa.Table) -> bool:
    """Whether an image of a listing has several prompts."""
    return MORE_PROMPTS in table.column_names and most_further(table[MORE_PROMPTS]) > 0


def digest_of(table: pa.Table) -> str:
    """Digest the values of a listing, so that two listings can be compared.

    Two listings have the same digest if and only if (but for a collision of SHA-256) they have the same
    columns in the same order with the same text and nulls. How they are divided into chunks, what else their
    buffers hold, and whether their strings have 32-bit or 64-bit offsets make no difference.

    Parameters
    ----------
    table : pyarrow.Table
        Of string columns.
    """
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        lengths, text = hashlib.sha256(), hashlib.sha256()
        for chunk in filter(len, column.chunks):
            strings = chunk.cast(pa.large_string())
            null = strings.is_null().to_numpy(zero_copy_only=False)
            if null.any():
                strings = strings.fill_null("")
            _, offsets, data = strings.buffers()
            ends = np.frombuffer(offsets, np.int64, len(strings) + 1, 8 * strings.offset)
            lengths.update(np.where(null, -1, np.diff(ends)).astype("<i8").data)
            if data is not None:
                text.update(memoryview(data)[ends[0] : ends[-1]])
        digest.update(f"{len(name.encode())} ".encode() + name.encode() + lengths.digest() + text.digest())
    return _OF_VALUES + digest.hexdigest()


def digest_of_stamps(stamps: NDArray[np.int64]) -> str:
    """Digest sizes and times of a listing, so that two listings can be compared.

    Parameters
    ----------
    stamps : numpy.ndarray, int64, shape (n, 2)
    """
    return hashlib.sha256(np.ascontiguousarray(stamps, "<i8").data).hexdigest()
