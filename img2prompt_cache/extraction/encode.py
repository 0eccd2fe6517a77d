"""The reader: images of a slice of rows, read, decoded and encoded batch by batch, in lanes side by side.

A lane takes a batch from bytes to features by itself. On a processor each lane computes on its share of the
cores, so decoding and encoding overlap, and no core waits for another at the end of
every layer. On a GPU the lanes decode, and take turns at the device.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Event
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction.clock import Clock
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.images.augment import take_view
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones.taps import Tap, split_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.sources.base import Source

MAX_LANES = 16


@dataclass(slots=True)
class Image:
    """What is known of one row: its bytes' hash, and the reason it cannot be used, if there is one.

    `twin` is the first row of the slice with the same bytes: encoded there, copied here.
    """

    sha256: str = ""
    reason: str = ""
    twin: int = -1


@dataclass(slots=True, eq=False)
class Batch:
    """A batch that has been through a lane.

    Attributes
    ----------
    first : int
        Its first row, within the slice.
    images : list of Image
    fresh : list of int
        Which of them were encoded: good, and not the twin of an earlier row.
    features : dict of str to numpy.ndarray, shape (len(fresh), …)
        By spec of the column; float32, or float16 for a trunk.
    clock : Clock
        Where the time went.
    """

    first: int
    images: list[Image]
    fresh: list[int] = field(default_factory=list)
    features: dict[str, NDArray[Any]] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)


_Work: TypeAlias = "tuple[Backbone, dict[str, Tap]]"
"""A backbone, and what to keep of it for each column."""


def encode_batches(
    rows: Slice,
    source: Source,
    backbones: Mapping[str, Backbone],
    batch_size: int,
    lanes: int | None = None,
) -> Iterator[Batch]:
    """Read, decode and encode the images of a slice.

    What a batch holds depends on the rows alone, not on how many lanes there are.

    Parameters
    ----------
    rows : Slice
    source : Source
        Gives the images' bytes.
    backbones : mapping of str to Backbone
        By spec of the column they fill. A backbone of several columns runs once for all of them, and once
        more for each view.
    batch_size : int
        Rows of a batch; the first begins at the slice's start.
    lanes : int, optional
        How many batches are worked on side by side; one a core if absent, 16 at most.

    Yields
    ------
    Batch
        In order; only a few are held at a time.
    """
    import torch

    lanes = lanes or min(cores(), MAX_LANES)
    before = torch.get_num_threads()
    # Sums are rounded as they are shared out, so the share must not depend on how many lanes there are.
    share = max(1, cores() // MAX_LANES)
    on_gpu = any(backbone.device.type != "cpu" for backbone in backbones.values())
    work = _share_out(backbones)
    # Two at the device at a time: one computes while the other copies.
    turns = BoundedSemaphore(2 if on_gpu else lanes)
    over = Event()
    first_of: dict[str, int] = {}
    done: list[Image] = []
    reads: deque[Future[tuple[list[bytes], Batch]]] = deque()
    encodings: deque[Future[Batch]] = deque()
    starts = iter(range(0, len(rows), batch_size))
    pool = ThreadPoolExecutor(lanes, "lane", initializer=torch.set_num_threads, initargs=(share,))
    try:
        while True:
            while len(reads) <= lanes and (first := next(starts, None)) is not None:
                reads.append(pool.submit(_read, rows, source, first, batch_size))
            if reads:
                data, batch = reads.popleft().result()
                _mark_twins(batch, data, first_of)
                encodings.append(pool.submit(_encode, data, batch, work, turns, over))
            if not encodings:
                break
            if len(encodings) > lanes or not reads:
                batch = encodings.popleft().result()
                done += batch.images
                for image in batch.images:
                    if image.twin >= 0:
                        image.reason = done[image.twin].reason
                yield batch
    finally:
        over.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(rows: Slice, source: Source, first: int, size: int) -> tuple[list[bytes], Batch]:
    batch = Batch(first, [])
    data = []
    with batch.clock.timed("read"):
        for row in range(first, min(first + size, len(rows))):
            raw, image = _bytes(rows, source, row)
            data.append(raw)
            batch.images.append(image)
    return data, batch


def _bytes(rows: Slice, source: Source, row: int) -> tuple[bytes, Image]:
    if rows.known and not rows.was_good(row):
        return b"", Image(reason="failed before")
    try:
        data = source.read(rows.text["uri"][row])
    except ImageError as error:
        return b"", Image(reason=str(error))
    sha256 = hashlib.sha256(data).hexdigest()
    if rows.known and rows.text["sha256"][row] not in ("", sha256):
        return b"", Image(sha256, reason="the image has changed since it was first cached")
    return data, Image(sha256, reason="" if data else "empty")


def _mark_twins(batch: Batch, data: list[bytes], first_of: dict[str, int]) -> None:
    for row, (raw, image) in enumerate(zip(data, batch.images, strict=True), batch.first):
        if raw:
            first = first_of.setdefault(image.sha256, row)
            image.twin = first if first != row else -1


def _share_out(backbones: Mapping[str, Backbone]) -> list[_Work]:
    """Put the columns of one backbone together."""
    work: dict[int, _Work] = {}
    for spec, backbone in backbones.items():
        work.setdefault(id(backbone), (backbone, {}))[1][spec] = split_spec(spec)[1]
    return list(work.values())


def _encode(
    data: list[bytes], batch: Batch, work: list[_Work], turns: BoundedSemaphore, over: Event
) -> Batch:
    """Decode and encode a batch; once all is over nobody waits for it, so it ends where it stands."""
    import torch

    wanted = {(b.geometry, shot) for b, taps in work for tap in taps.values() for shot in tap.inputs}
    shots = {shot for _, shot in wanted}
    pixels: dict[object, list[NDArray[np.uint8]]] = {key: [] for key in wanted}
    with batch.clock.timed("decode"):
        for i, image in enumerate(batch.images):
            if over.is_set():
                return batch
            if image.reason or image.twin >= 0:
                continue
            try:
                picture = decode(data[i])
                seen = {shot: take_view(picture, image.sha256, shot) if shot else picture for shot in shots}
                made = {key: key[0].apply(seen[key[1]]) for key in wanted}
            except ImageError as error:
                image.reason = str(error)
                continue
            data[i] = b""
            batch.fresh.append(i)
            for key, array in made.items():
                pixels[key].append(array)
    if batch.fresh:
        for backbone, taps in work:
            found = {}
            for shot in dict.fromkeys(shot for tap in taps.values() for shot in tap.inputs):
                if over.is_set():
                    return batch
                names = {tap.name for tap in taps.values() if shot in tap.inputs}
                stacked = torch.from_numpy(np.stack(pixels[backbone.geometry, shot]))
                with turns, batch.clock.timed(backbone.spec):
                    found[shot] = backbone.read(stacked, names)
            for spec, tap in taps.items():
                values = [found[shot][tap.name] for shot in tap.inputs]
                batch.features[spec] = np.stack(values, 1) if tap.views else values[0]
    return batch
