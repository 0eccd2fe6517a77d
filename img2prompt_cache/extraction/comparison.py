"""A listing compared with the rows that were cached from the same source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.cache.reader import FAILED, REMOVED, Cache
from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction.changes import EXAMPLES, Change, Changes
from img2prompt_cache.extraction.listing import extra_columns, has_several
from img2prompt_cache.extraction.threads import map_in_order
from img2prompt_cache.progress import Callback, ignore, task
from img2prompt_cache.sources.several import MORE_PROMPTS
from img2prompt_cache.sources.stamps import UNKNOWN
from img2prompt_cache.tables import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.extraction.listing import Known
    from img2prompt_cache.sources.base import Source

_LONGEST = 60
_THREADS = 8


def find_changes(
    cache: Cache,
    table: pa.Table,
    known: Known,
    stamps: NDArray[np.int64],
    kept: NDArray[np.int64],
    source: Source,
    *,
    update: bool = False,
    check: bool = False,
    retrying: bool = False,
    tell: Callback = ignore,
) -> Changes:
    """Compare a listing with the rows that were cached from the same source.

    Parameters
    ----------
    cache : Cache
    table : pyarrow.Table
        The listing, of n rows.
    known : Known
        Which of them are cached.
    stamps : numpy.ndarray, int64, shape (n, 2)
        Size and time of the listed images.
    kept : numpy.ndarray, int64, shape (rows of the cache, 2)
        Those of the cached images.
    source : Source
        Gives the bytes of images whose size or time differ.
    update : bool
        Whether the pass takes in all changes.
    check : bool
        Compare the bytes of every image.
    retrying : bool
        Leave out images that failed: they are read anyway.
    tell : callable
        Takes the steps of the task ``"check images"``.
    """
    listed = table.take(pa.array(known.listed))
    ids, rows = listed["imgId"], known.rows
    status = cache.table("status")["status"]
    removed = np.setdiff1d(known.of_source, rows, assume_unique=True)
    removed = removed[pc.not_equal(status.take(pa.array(removed)), REMOVED).to_numpy()]
    was = status.take(pa.array(rows))
    returned = pc.equal(was, REMOVED).to_numpy()

    def hash_image(uri: str) -> str:
        try:
            return hashlib.sha256(source.read(uri)).hexdigest()
        except ImageError:
            return ""  # it cannot be read

    def differ(name: str, where: NDArray[np.bool_] | None = None) -> Change:
        nothing = pa.chunked_array([pa.array([""] * len(rows), pa.string())])
        now = listed[name].fill_null("") if name in listed.column_names else nothing
        known_text = name in cache.manifest.row_datasets
        before = cache.table(name)[name].take(pa.array(rows)).cast(now.type) if known_text else nothing
        differs = pc.not_equal(now, before).to_numpy()
        return _change(rows, ids, differs if where is None else differs & where, now, before)

    extra = tuple(name for name in extra_columns(table) if name != MORE_PROMPTS)
    added = tuple(name for name in extra if name not in cache.manifest.extra)
    columns = {name: differ(name) for name in cache.manifest.extra if name in extra}
    for name in added:
        now = listed[name].fill_null("")
        columns[name] = _change(rows, ids, pc.not_equal(now, "").to_numpy(), now)
    dropped = tuple(
        name
        for name in cache.manifest.extra
        if name not in (*extra, MORE_PROMPTS)
        and pc.any(pc.not_equal(cache.table(name)[name].take(pa.array(known.of_source)), "")).as_py()
    )
    renamed = _find_renamed(cache, known, listed, added, dropped)
    had = pc.not_equal(cache.table("prompt")["prompt"].take(pa.array(rows)), "").to_numpy()
    prompts, more_prompts = differ("prompt", had), differ(MORE_PROMPTS, had)
    new_prompts, new_further = differ("prompt", ~had), differ(MORE_PROMPTS, ~had)
    fresh = table.filter(pa.array(known.fresh))
    several = (update and len(more_prompts)) or len(new_further) or has_several(fresh)
    if MORE_PROMPTS not in cache.manifest.extra and several:
        added = (*added, MORE_PROMPTS)
    places = differ("uri")
    moved = np.isin(rows, places.rows)
    unknown = (kept[rows] == UNKNOWN).any(1)
    told = (stamps[known.listed] != UNKNOWN).any(1)
    same, unreadable = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    suspect = ~returned & (check | moved | (~unknown & (stamps[known.listed] != kept[rows]).any(1)))
    if retrying:
        same = pc.equal(was, FAILED).to_numpy().copy()
        suspect &= ~same
    uris = listed["uri"]
    at = np.flatnonzero(suspect)
    if len(at):
        before = cache.table("sha256")["sha256"].take(pa.array(rows[at])).to_pylist()
        with task(tell, "check images", len(at)) as advance:
            hashes = map_in_order(hash_image, uris.take(pa.array(at)).to_pylist(), _THREADS)
            for i, one, other in zip(at.tolist(), hashes, before, strict=True):
                same[i], unreadable[i] = one == other, not one and bool(other)
                advance(1)
    return Changes(
        columns={name: change for name, change in columns.items() if len(change)},
        added=added,
        dropped=dropped,
        moved=_change(rows, ids, moved & same, uris),
        renamed=renamed,
        renamed_ids=known.renamed,
        prompts=prompts,
        new_prompts=new_prompts,
        new_further=new_further,
        more_prompts=more_prompts,
        images=_change(rows, ids, suspect & ~same & ~unreadable, uris),
        removed=_change(removed, cache.table("imgId")["imgId"].take(pa.array(removed))),
        returned=_change(rows, ids, returned, uris),
        unreadable=rows[unreadable],
        unknown=int((unknown & told & ~suspect & ~returned).sum()),
        updated=update,
    )


def _find_renamed(
    cache: Cache, known: Known, listed: pa.Table, added: Iterable[str], dropped: Iterable[str]
) -> dict[str, str]:
    """Find added columns that have the values of a dropped one in every cached row; give the name of that."""
    found: dict[str, str] = {}
    rows = pa.array(known.rows)
    for old in dropped:
        before = cache.table(old)[old].take(rows)
        for name in added:
            now = listed[name].fill_null("").cast(before.type)
            if name not in found and pc.all(pc.equal(now, before)).as_py():
                found[name] = old
                break
    return found


def _change(
    rows: NDArray[np.int64],
    ids: pa.ChunkedArray,
    mask: NDArray[np.bool_] | None = None,
    now: pa.ChunkedArray | None = None,
    before: pa.ChunkedArray | None = None,
) -> Change:
    """Keep the rows of a mask; examples say what was before where `before` is given."""
    at = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    first = pa.array(at[:EXAMPLES])
    examples = [{"imgId": shorten(name, _LONGEST)} for name in ids.take(first).to_pylist()]
    if before is not None and now is not None:
        texts = zip(examples, before.take(first).to_pylist(), now.take(first).to_pylist(), strict=True)
        examples = [
            {**one, "was": shorten(old, _LONGEST), "now": shorten(new, _LONGEST)} for one, old, new in texts
        ]
    return Change(rows[at], [] if now is None else now.take(pa.array(at)).to_pylist(), tuple(examples))
