"""Rows of a report: ids, prompts and images of a cache, or of a source that is not extracted yet."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from img2prompt_cache.cache.reader import FAILED, OK, REMOVED, Cache
from img2prompt_cache.errors import ImageError, Img2PromptError
from img2prompt_cache.extraction.threads import map_in_order
from img2prompt_cache.extraction.work import OpenSources
from img2prompt_cache.images.decode import check_header
from img2prompt_cache.progress import Callback, task

if TYPE_CHECKING:
    import pyarrow as pa

    from img2prompt_cache.sources.base import Source

THREADS = 4
"""How many images of a source are read at a time."""

CHANGED = "the image has changed since it was cached"
UNKNOWN = "it is not known what was cached of the image"

Reader = Callable[[int], bytes]
"""Reads the image file of a row; raises ImageError where that cannot be done."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What is known of each row before any model is asked.

    Attributes
    ----------
    ids, prompts : list of str, length n
        A prompt is empty where there is none.
    status, reasons : list of str, length n
        ``"ok"``, ``"failed"`` or ``"removed"``, and why an image failed.
    digests : list of str, length n
        SHA-256 of the image file, in hex; empty where it is not known.
    found_in : list of str, length n
        What the prompt was found by (``"a1111"``, ``"comfyui"``, …); all empty where the source does not say.
    read : callable
        Reads the image file of a row, whatever its bytes are; `image` is for what is shown.
    """

    ids: list[str]
    prompts: list[str]
    status: list[str]
    reasons: list[str]
    digests: list[str]
    found_in: list[str]
    read: Reader

    @classmethod
    def of_cache(cls, cache: Cache) -> Self:
        """Read the rows of a cache; its images are read from the sources that the manifest names.

        Raises
        ------
        Img2PromptError
            If a part is damaged.
        """
        cache.require_undamaged([cache.manifest.columns[0]])
        text = cache.text("imgId", "prompt", "status", "reason", "sha256", "uri")
        found_in = cache.text("found_in")["found_in"] if "found_in" in cache.manifest.extra else []
        return cls(
            ids=text["imgId"],
            prompts=text["prompt"],
            status=text["status"],
            reasons=text["reason"],
            digests=text["sha256"],
            found_in=found_in or [""] * cache.rows,
            read=cached_images(cache, text["uri"]),
        )

    @classmethod
    def of_source(cls, source: Source, table: pa.Table, tell: Callback) -> Self:
        """Read the rows of a source that is not extracted yet.

        Every image file is read once: its header says whether it can be used, its bytes whether it is twice.

        Parameters
        ----------
        source : Source
        table : pyarrow.Table
            Its listing; see `sources.Listing`.
        tell : callable
        """
        uris = table["uri"].to_pylist()

        def examine(uri: str) -> tuple[str, str]:
            try:
                data = source.read(uri)
                check_header(data)
            except ImageError as error:
                return "", str(error)
            return hashlib.sha256(data).hexdigest(), ""

        digests, reasons = list[str](), list[str]()
        with task(tell, "images", len(uris)) as advance:
            for digest, reason in map_in_order(examine, uris, THREADS):
                digests.append(digest)
                reasons.append(reason)
                advance(1)
        found_in = table["found_in"].to_pylist() if "found_in" in table.column_names else []
        return cls(
            ids=table["imgId"].to_pylist(),
            prompts=[prompt or "" for prompt in table["prompt"].to_pylist()],
            status=[FAILED if reason else OK for reason in reasons],
            reasons=reasons,
            digests=digests,
            found_in=[found or "" for found in found_in] or [""] * len(uris),
            read=lambda row: source.read(uris[row]),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, row: int) -> bytes:
        """Read the image file of a row if it has the bytes that `digests` says.

        Raises
        ------
        ImageError
            If it cannot be read, has other bytes, or it is not known which it had: a cache from a stranger
            could name any file of this machine.
        """
        known = self.digests[row]
        if not known:
            raise ImageError(UNKNOWN)
        data = self.read(row)
        if hashlib.sha256(data).hexdigest() != known:
            raise ImageError(CHANGED)
        return data

    @property
    def present(self) -> list[int]:
        """Rows that were not removed."""
        return [row for row, status in enumerate(self.status) if status != REMOVED]

    @property
    def good(self) -> list[int]:
        """Rows whose image could be read."""
        return [row for row, status in enumerate(self.status) if status == OK]

    @property
    def prompted(self) -> list[int]:
        """Rows that were not removed and have a prompt."""
        return [row for row in self.present if self.prompts[row].strip()]


def cached_images(cache: Cache, uris: list[str]) -> Reader:
    """Make a reader of the images of a cache."""
    parts = cache.manifest.columns[0].parts
    starts = [part.start for part in parts]
    sources = OpenSources(cache.manifest.sources)
    out_of_reach: dict[int, str] = {}

    def read(row: int) -> bytes:
        number = parts[bisect_right(starts, row) - 1].source
        if number in out_of_reach:  # a server that does not answer is not waited for again
            raise ImageError(out_of_reach[number])
        try:
            return sources[number].read(uris[row])
        except ImageError:
            raise
        except (Img2PromptError, LookupError) as error:
            out_of_reach[number] = f"its source cannot be opened: {error}"
            raise ImageError(out_of_reach[number]) from None

    return read
