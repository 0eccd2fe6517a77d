"""The listing of a source, compared with the rows of a cache."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.cache.manifest import EXTRA_NAME, ROW_COLUMNS
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.sources.clues import explain_missing_prompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Listing, Source

_OF_VALUES = "v2-"


def list_pairs(source: Source) -> Listing:
    """List a source that is to give pairs.

    Raises
    ------
    Img2PromptError
        If no image has a prompt, unless the source was named as images alone.
    UsageError
        As `Source.list`.
    """
    listing = source.list()
    format = source.settings.get("format", "")
    alone = format in ("folder", "paths") and not getattr(source, "detected", False)
    if listing.summary.pairs or alone:
        return listing
    raise Img2PromptError(explain_missing_prompts(source.root, len(listing.table), format))


def fresh_rows(
    table: pa.Table, cached: pa.Table, origin: NDArray[np.int64], source: int
) -> tuple[pa.Table, int]:
    """Pick the rows of a listing that are not cached yet.

    Parameters
    ----------
    table : pyarrow.Table
        The listing.
    cached : pyarrow.Table
        `imgId` and `prompt` of every cached row.
    origin : numpy.ndarray, int64, shape (cached rows,)
        Which source each came from.
    source : int
        Which source was listed.

    Returns
    -------
    fresh : pyarrow.Table
        In the listing's order.
    changed : int
        Cached rows whose prompt in the listing is another one now.

    Raises
    ------
    UsageError
        If an imgId is cached already from another source.
    """
    if not len(cached):
        return table, 0
    at = pc.index_in(table["imgId"], value_set=cached["imgId"].cast(table.schema.field("imgId").type))
    known = at.drop_null().to_numpy()
    taken = known[origin[known] != source]
    if len(taken):
        img_id = cached["imgId"][int(taken[0])].as_py()
        raise UsageError(
            f"imgId {img_id!r} is cached already from another source; give this source a cache of its own "
            "with `cache`"
        )
    prompts = table["prompt"].filter(pc.is_valid(at)).fill_null("")
    changed = pc.sum(pc.not_equal(prompts, cached["prompt"].take(known).cast(prompts.type))).as_py() or 0
    return table.filter(pc.is_null(at)), changed


def extra_columns(table: pa.Table) -> tuple[str, ...]:
    """Name the columns of the user's own table that can be kept under their names."""
    return tuple(
        name
        for name in table.column_names
        if name not in ROW_COLUMNS and EXTRA_NAME.fullmatch(name) is not None
    )


def digest_of(table: pa.Table) -> str:
    """Digest the values of a listing, so that two listings can be compared.

    Two tables have the same digest if and only if (but for a collision of SHA-256) they have the same columns
    in the same order with the same text and nulls. How they are divided into chunks, what else their buffers
    hold, and whether their strings have 32-bit or 64-bit offsets make no difference.

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


def is_digest_of(kept: object, digest: str, table: pa.Table) -> bool:
    """Say whether what a cache has kept is the digest of a listing, by the rule of today or the one before.

    Parameters
    ----------
    kept : object
        From the cache.
    digest : str
        From `digest_of`.
    table : pyarrow.Table
        The listing.
    """
    if isinstance(kept, str) and not kept.startswith(_OF_VALUES):
        return kept == _digest_of_buffers(table)
    return kept == digest


def _digest_of_buffers(table: pa.Table) -> str:
    """Digest a listing as version 0.1 did: over its chunks and buffers as they lie in memory."""
    digest = hashlib.sha256(table.schema.to_string().encode())
    for column in table.columns:
        for chunk in column.chunks:
            digest.update(f"{len(chunk)} {chunk.offset}".encode())
            for buffer in chunk.buffers():
                if buffer is not None:
                    digest.update(buffer)
    return digest.hexdigest()
