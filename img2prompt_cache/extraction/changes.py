"""What has changed in a source since its rows were cached: values of the table, prompts, images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.cache.reader import FAILED, REMOVED, Cache
from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction.listing import extra_columns
from img2prompt_cache.progress import Callback, ignore, task
from img2prompt_cache.sources.stamps import UNKNOWN
from img2prompt_cache.tables import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.extraction.listing import Known
    from img2prompt_cache.sources.base import Source

EXAMPLES = 3
_LONGEST = 60
_BLOCK, _THREADS = 4096, 8


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Rows of a cache for which the source says something else now.

    Attributes
    ----------
    rows : numpy.ndarray, int64, shape (n,)
        Row numbers in the cache.
    now : sequence of str
        The text of each row in the source: a value, a prompt, or the uri of an image. Empty where the source
        has no such row any more.
    examples : tuple of dict of str to str
        Of the first rows: `imgId`, and where texts have changed `was` and `now`, shortened.
    """

    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    now: Sequence[str] = ()
    examples: tuple[dict[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def first(self) -> str:
        """The first example in words."""
        one = self.examples[0]
        more = f" {one['was']!r} → {one['now']!r}" if "was" in one else ""
        return f"(first: {one['imgId']}{more})"

    def summary(self) -> dict[str, Any]:
        """Give the number of rows and the examples, as JSON values."""
        return {"rows": len(self), "examples": list(self.examples)}


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Everything in which a source differs from the rows that were cached from it.

    Attributes
    ----------
    columns : dict of str to Change
        By the user's own column that the cache keeps, or is to keep from now on.
    added, dropped : tuple of str
        Columns that the cache lacks, and such that the source lacks.
    moved : Change
        Images that have the same bytes in another place.
    prompts, images, removed, returned : Change
        Prompts that differ, images with other bytes, images that the source lists no more, and images that
        were removed before and are listed again.
    unreadable : numpy.ndarray, int64, shape (n,)
        Rows whose image could not be read to compare its bytes.
    unknown : int
        Images whose size and time were not known, so that they count as unchanged.
    updated : bool
        Whether the pass takes in what is not a column.
    """

    columns: dict[str, Change] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    moved: Change = field(default_factory=Change)
    prompts: Change = field(default_factory=Change)
    images: Change = field(default_factory=Change)
    removed: Change = field(default_factory=Change)
    returned: Change = field(default_factory=Change)
    unreadable: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    unknown: int = 0
    updated: bool = False

    @property
    def contents(self) -> dict[str, Change]:
        """What needs `update` to be taken in, where there is any."""
        found = {
            "images": self.images,
            "prompts": self.prompts,
            "removed": self.removed,
            "returned": self.returned,
        }
        return {name: change for name, change in found.items() if len(change)}

    @property
    def all_taken_in(self) -> bool:
        """Whether the cache holds what the source says once the pass has ended."""
        return (self.updated or not self.contents) and not len(self.unreadable)

    @property
    def unsettled(self) -> NDArray[np.int64]:
        """Rows whose image is still to be compared by the next pass."""
        return np.concatenate([self.unreadable, *([] if self.updated else [self.images.rows])])

    def summary(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {
            "columns": {name: change.summary() for name, change in self.columns.items()},
            "added": list(self.added),
            "dropped": list(self.dropped),
            **{name: getattr(self, name).summary() for name in ("prompts", "images", "removed", "returned")},
            "moved": len(self.moved),
            "unreadable": len(self.unreadable),
            "updated": self.updated,
        }

    def lines(self) -> Iterator[str]:
        """Say in words what has changed, one line each, and what is done or can be done about it."""
        for name, change in self.columns.items():
            if name not in self.added:
                yield f"column {name}: {len(change)} values have changed and are taken over {change.first}"
        if self.added:
            yield f"columns that are new in the table and kept from now on: {', '.join(self.added)}"
        if self.dropped:
            yield f"columns that the table has no more; their cached values stay: {', '.join(self.dropped)}"
        if len(self.moved):
            yield f"{len(self.moved)} images have moved and are the same {self.moved.first}"
        said = {
            "images": ("images have changed", "encoded again", "encodes them again"),
            "prompts": ("prompts differ from the cached ones", "taken over", "takes them over"),
            "removed": ("cached images are gone from the source", "left out", "leaves them out"),
            "returned": ("removed images are back", "encoded again", "takes them in"),
        }
        for name, change in self.contents.items():
            what, done, to_do = said[name]
            then = f"they are {done}" if self.updated else f"`update=True` {to_do}"
            yield f"{len(change)} {what} {change.first}; {then}"
        if len(self.unreadable):
            yield f"{len(self.unreadable)} images cannot be read now, and stay as they were cached"
        if self.unknown:
            yield (
                f"{self.unknown} images were cached without size and time, and are taken to be the same; "
                "`check=True` compares their bytes"
            )


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
        Takes the steps of the task ``"compare"``.
    """
    listed = table.take(pa.array(known.listed))
    ids, rows = listed["imgId"], known.rows
    status = cache.table("status")["status"]
    removed = np.setdiff1d(known.of_source, rows, assume_unique=True)
    removed = removed[pc.not_equal(status.take(pa.array(removed)), REMOVED).to_numpy()]
    was = status.take(pa.array(rows))
    returned = pc.equal(was, REMOVED).to_numpy()

    def differ(name: str) -> Change:
        now = listed[name].fill_null("")
        before = cache.table(name)[name].take(pa.array(rows)).cast(now.type)
        return _change(rows, ids, pc.not_equal(now, before).to_numpy(), now, before)

    extra = extra_columns(table)
    added = tuple(name for name in extra if name not in cache.manifest.extra)
    columns = {name: differ(name) for name in cache.manifest.extra if name in extra}
    for name in added:
        now = listed[name].fill_null("")
        columns[name] = _change(rows, ids, pc.not_equal(now, "").to_numpy(), now)
    dropped = tuple(
        name
        for name in cache.manifest.extra
        if name not in extra
        and pc.any(pc.not_equal(cache.table(name)[name].take(pa.array(known.of_source)), "")).as_py()
    )
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
        with task(tell, "compare", len(at)) as advance:
            hashes = _hashes(source, uris.take(pa.array(at)).to_pylist(), advance)
            for i, one, other in zip(at.tolist(), hashes, before, strict=True):
                same[i], unreadable[i] = one == other, not one and bool(other)
    return Changes(
        columns={name: change for name, change in columns.items() if len(change)},
        added=added,
        dropped=dropped,
        moved=_change(rows, ids, moved & same, uris),
        prompts=differ("prompt"),
        images=_change(rows, ids, suspect & ~same & ~unreadable, uris),
        removed=_change(removed, cache.table("imgId")["imgId"].take(pa.array(removed))),
        returned=_change(rows, ids, returned, uris),
        unreadable=rows[unreadable],
        unknown=int((unknown & told & ~suspect & ~returned).sum()),
        updated=update,
    )


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


def _hashes(source: Source, uris: list[str], advance: Any) -> Iterator[str]:
    """Hash images with several threads, in order; empty where one cannot be read."""

    def hash_image(uri: str) -> str:
        try:
            return hashlib.sha256(source.read(uri)).hexdigest()
        except ImageError:
            return ""

    with ThreadPoolExecutor(_THREADS, "compare") as pool:
        for start in range(0, len(uris), _BLOCK):  # `map` would hold a task for every image
            for digest in pool.map(hash_image, uris[start : start + _BLOCK]):
                advance(1)
                yield digest
