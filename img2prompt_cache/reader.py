"""The reader: the images of a slice of rows, read and decoded once, one batch ahead of the encoders."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache import OK
from img2prompt_cache.errors import ImageError
from img2prompt_cache.geometry import Geometry
from img2prompt_cache.images import decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Source

    Pixels = dict[Geometry, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one part.

    Attributes
    ----------
    number : int
        Which part.
    start : int
        Its first row.
    text : dict of str to list of str
        `imgId`, `uri`, `prompt` and the user's own columns; with `sha256` and `status` where the rows are
        cached already.
    """

    number: int
    start: int
    text: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.text["imgId"])

    @property
    def known(self) -> bool:
        """Whether these rows are cached already and only other columns are to be added."""
        return "sha256" in self.text


@dataclass(slots=True)
class Clock:
    """Seconds of work in each stage of a pass, summed over threads."""

    seconds: dict[str, float] = field(default_factory=dict)

    def charge(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Charge a stage with the time its block takes."""
        started = time.perf_counter()
        yield
        self.charge(stage, time.perf_counter() - started)


@dataclass(slots=True)
class Image:
    """What reading one row gave: its bytes' hash, and pixels or the reason there are none.

    `twin` is the first row of the part with the same bytes: encoded there, copied here.
    """

    sha256: str = ""
    reason: str = ""
    twin: int = -1
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    pixels: Pixels = field(default_factory=dict)


class Reader:
    """Reads and decodes the images of a slice, one batch ahead of the encoders."""

    def __init__(self, rows: Slice, source: Source, geometries: set[Geometry], clock: Clock) -> None:
        self.rows = rows
        self.source = source
        self.geometries = geometries
        self.clock = clock
        self.done: list[Image] = []
        self._first_of: dict[str, int] = {}

    def batches(self, size: int, threads: int) -> Iterator[tuple[int, list[Image]]]:
        """Yield (first row within the part, images) for every batch; pixels are let go afterwards."""
        starts = range(0, len(self.rows), size)
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            ahead = self._submit(pool, starts[0], size) if starts else []
            for first in starts:
                now = ahead
                ahead = self._submit(pool, first + size, size) if first + size < len(self.rows) else []
                batch = [future.result() for future in now]
                self.done += batch
                for image in batch:
                    if image.twin >= 0:
                        image.reason = self.done[image.twin].reason
                self.clock.charge("read", sum(image.read_seconds for image in batch))
                self.clock.charge("decode", sum(image.decode_seconds for image in batch))
                yield first, batch
                for image in batch:
                    image.pixels = {}

    def _submit(self, pool: ThreadPoolExecutor, first: int, size: int) -> list[Future[Image]]:
        raw = [pool.submit(self._read, row) for row in range(first, min(first + size, len(self.rows)))]
        futures = []
        for row, future in enumerate(raw, first):
            data, image = future.result()
            twin = self._first_of.setdefault(image.sha256, row) if data else row
            if data and twin != row:
                image.twin = twin
            futures.append(pool.submit(self._decode, data, image))
        return futures

    def _read(self, row: int) -> tuple[bytes, Image]:
        started = time.perf_counter()
        data, image = self._bytes(row)
        image.read_seconds = time.perf_counter() - started
        return data, image

    def _bytes(self, row: int) -> tuple[bytes, Image]:
        if self.rows.known and self.rows.text["status"][row] != OK:
            return b"", Image(reason="failed before")
        try:
            data = self.source.read(self.rows.text["uri"][row])
        except ImageError as error:
            return b"", Image(reason=str(error))
        sha256 = hashlib.sha256(data).hexdigest()
        if self.rows.known and sha256 != self.rows.text["sha256"][row]:
            return b"", Image(sha256, reason="the image has changed since it was first cached")
        return data, Image(sha256, reason="" if data else "empty")

    def _decode(self, data: bytes, image: Image) -> Image:
        if not data or image.twin >= 0:
            return image
        started = time.perf_counter()
        try:
            picture = decode(data)
            image.pixels = {geometry: geometry.apply(picture) for geometry in self.geometries}
        except ImageError as error:
            image.reason = str(error)
        image.decode_seconds = time.perf_counter() - started
        return image
