"""The images of a slice of rows, read, decoded and encoded batch by batch, in lanes side by side.

A lane takes a batch from bytes to features by itself. On a processor each lane computes on its share of the
cores, so decoding and encoding overlap, and no core waits for another at the end of every layer. On a GPU the
lanes decode, and take turns at the device.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from img2prompt_cache.errors import ImageError
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.images.augment import SQUASHED, View, squash, take_view
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones.taps import Tap, split_spec
from img2prompt_cache.models.devices import MAX_LANES, cores, lane_threads

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from img2prompt_cache.images.geometry import Geometry
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.sources.base import Source


@dataclass(slots=True)
class Image:
    """What is known of the image of one row.

    Attributes
    ----------
    sha256 : str
        Of its bytes; empty if they could not be read.
    reason : str
        Why it cannot be used; empty if it can.
    duplicate_of : int
        The first row of the slice with the same bytes, which is encoded in its place; -1 if there is none
        before it.
    """

    sha256: str = ""
    reason: str = ""
    duplicate_of: int = -1


@dataclass(slots=True, eq=False)
class Batch:
    """A batch that has been through a lane.

    Attributes
    ----------
    first : int
        Its first row, within the slice.
    images : list of Image
    fresh : list of int
        Which of them were encoded: good, and no duplicate of an earlier row.
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


_Task: TypeAlias = "tuple[Backbone, dict[str, Tap]]"
"""A backbone, and what to keep of its forward pass for each column."""
_Streams: TypeAlias = "SimpleQueue[torch.cuda.Stream | None]"
"""What lanes take turns with at the device: streams of a GPU, or None for each lane of a processor."""
_Pixels: TypeAlias = "dict[tuple[Geometry, View | None], list[NDArray[np.uint8]]]"
"""The images of a batch for each geometry and view that some backbone takes; None is the whole image."""


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
    tasks = _group_columns(backbones)
    streams = _streams(backbones, lanes)
    stopped = Event()
    first_of: dict[str, int] = {}
    done: list[Image] = []
    reads: deque[Future[tuple[list[bytes], Batch]]] = deque()
    encodings: deque[Future[Batch]] = deque()
    starts = iter(range(0, len(rows), batch_size))
    pool = ThreadPoolExecutor(lanes, "lane", initializer=torch.set_num_threads, initargs=(lane_threads(),))
    try:
        while True:
            while len(reads) <= lanes and (first := next(starts, None)) is not None:
                reads.append(pool.submit(_read, rows, source, first, batch_size))
            if reads:
                data, batch = reads.popleft().result()
                _mark_duplicates(batch, data, first_of)
                encodings.append(pool.submit(_encode, data, batch, tasks, streams, stopped))
            if not encodings:
                break
            if len(encodings) > lanes or not reads:
                batch = encodings.popleft().result()
                done += batch.images
                for image in batch.images:
                    if image.duplicate_of >= 0:
                        image.reason = done[image.duplicate_of].reason
                yield batch
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


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


def _mark_duplicates(batch: Batch, data: list[bytes], first_of: dict[str, int]) -> None:
    for row, (raw, image) in enumerate(zip(data, batch.images, strict=True), batch.first):
        if raw:
            first = first_of.setdefault(image.sha256, row)
            image.duplicate_of = first if first != row else -1


def _group_columns(backbones: Mapping[str, Backbone]) -> list[_Task]:
    """Put the columns of one backbone together."""
    tasks: dict[int, _Task] = {}
    for spec, backbone in backbones.items():
        tasks.setdefault(id(backbone), (backbone, {}))[1][spec] = split_spec(spec)[1]
    return list(tasks.values())


def _streams(backbones: Mapping[str, Backbone], lanes: int) -> _Streams:
    """Make what lanes take turns with at the device.

    On a GPU two streams: one computes while the other copies. More would each keep memory of their own, since
    torch reuses what a stream has freed for that stream alone. On a processor no lane waits for another.
    """
    import torch

    streams: _Streams = SimpleQueue()
    devices = {backbone.device for backbone in backbones.values() if backbone.device.type == "cuda"}
    for _ in range(2 if devices else lanes):
        stream = torch.cuda.Stream(next(iter(devices))) if devices else None  # type: ignore[no-untyped-call]
        streams.put(stream)
    return streams


def _encode(data: list[bytes], batch: Batch, tasks: list[_Task], streams: _Streams, stopped: Event) -> Batch:
    """Decode and encode a batch; once `stopped` is set nobody waits for it, so it ends where it stands."""
    import torch

    pixels = _decode(data, batch, tasks, stopped)
    for backbone, taps in tasks if batch.fresh else ():
        outputs: dict[View | None, dict[str, NDArray[Any]]] = {}
        for view, names in _outputs_by_view(taps).items():
            if stopped.is_set():
                return batch
            stacked = torch.from_numpy(np.stack(pixels[backbone.geometry, view]))
            stream = streams.get()
            try:
                with batch.clock.timed(backbone.spec), torch.cuda.stream(stream):
                    outputs[view] = backbone.read(stacked, names)
            finally:
                streams.put(stream)
        for spec, tap in taps.items():
            values = [outputs[view][tap.name] for view in tap.inputs]
            batch.features[spec] = np.stack(values, 1) if tap.views else values[0]
    return batch


def _outputs_by_view(taps: dict[str, Tap]) -> dict[View | None, set[str]]:
    """Which outputs of a backbone some column keeps of each view."""
    found: dict[View | None, set[str]] = {}
    for tap in taps.values():
        for view in tap.inputs:
            found.setdefault(view, set()).add(tap.name)
    return found


def _decode(data: list[bytes], batch: Batch, tasks: list[_Task], stopped: Event) -> _Pixels:
    """Decode the images of a batch and cut out what each backbone takes; note the reason where that fails."""
    wanted = {(backbone.geometry, view) for backbone, taps in tasks for view in _outputs_by_view(taps)}
    views = {view for _, view in wanted}
    pixels: _Pixels = {key: [] for key in wanted}
    with batch.clock.timed("decode"):
        for i, image in enumerate(batch.images):
            if stopped.is_set():
                break
            if image.reason or image.duplicate_of >= 0:
                continue
            try:
                picture = decode(data[i])
                viewed = {
                    view: picture
                    if view is None or view == SQUASHED
                    else take_view(picture, image.sha256, view)
                    for view in views
                }
                made = {
                    (geometry, view): squash(picture, geometry)
                    if view == SQUASHED
                    else geometry.apply(viewed[view])
                    for geometry, view in wanted
                }
            except ImageError as error:
                image.reason = str(error)
                continue
            data[i] = b""  # its memory is needed for the pixels
            batch.fresh.append(i)
            for key, array in made.items():
                pixels[key].append(array)
    return pixels
