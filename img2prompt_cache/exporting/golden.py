"""A golden set: a few images as a graph takes them, and what it gives for them, to try a client on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.data.feature_blocks import concatenate
from img2prompt_cache.errors import ImageError, Img2PromptError
from img2prompt_cache.images.decode import decode
from img2prompt_cache.images.scenes.picture import render
from img2prompt_cache.images.scenes.words import sample_scenes
from img2prompt_cache.models.backbones.taps import split_spec
from img2prompt_cache.models.onnx_file import open_session
from img2prompt_cache.prediction.expectation import predict_expected
from img2prompt_cache.prediction.stream import as_stored
from img2prompt_cache.reporting.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from img2prompt_cache.exporting.run_graph import RunParts
    from img2prompt_cache.runs.run import Run

    F32 = NDArray[np.float32]

IMAGES = 12
"""Images of a golden set."""
BATCH = 4
SEED = 0
CACHE, DRAWN = "images of the cache", f"pictures drawn with the seed {SEED}"
"""Where they may come from."""


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures, and where they come from: `CACHE` or `DRAWN`."""

    pictures: list[Image.Image]
    origin: str


def golden_pictures(run: Run) -> Pictures:
    """Read images of a run's cache, from all over it; draw pictures where so many cannot be read."""
    try:
        found = {} if run.home is None else dict(read_pictures(Rows.of_cache(Cache(run.home)), IMAGES))
    except Img2PromptError:
        found = {}
    if len(found) == IMAGES:
        return Pictures([found[row] for row in sorted(found)], CACHE)
    return Pictures([render(scene) for scene in sample_scenes(IMAGES, SEED)], DRAWN)


def read_pictures(
    rows: Rows, count: int, among: Sequence[int] | None = None
) -> Iterator[tuple[int, Image.Image]]:
    """Read up to so many images of rows, far apart: each with the number of its row.

    Images that have changed since, or cannot be read, are passed over, but no more than `count` of them.
    """
    good = [row for row in (range(len(rows)) if among is None else among) if rows.status[row] == OK]
    order = dict.fromkeys(good[at * len(good) // count] for at in range(count) if good)
    order |= dict.fromkeys(good[: 2 * count])
    found = 0
    for row in [*order][: 2 * count]:
        if found == count:
            return
        try:
            picture = decode(rows.image(row))
        except ImageError:
            continue
        found += 1
        yield row, picture


def prepare(parts: RunParts, pictures: Sequence[Image.Image]) -> dict[str, NDArray[np.uint8]]:
    """Bring pictures to the inputs of a run's graph, by name."""
    return {each.name: each.prepare(pictures) for each in parts.pixel_inputs}


def predicted(parts: RunParts, pixels: dict[str, NDArray[np.uint8]]) -> tuple[F32, F32 | None]:
    """Predict with torch what `predict` does where backbones compute in float32."""
    import torch

    run, blocks = parts.run, {}
    for used in parts.backbones:
        for at, column in used.columns.items():
            values = torch.from_numpy(pixels[parts.inputs[at].name])
            name = split_spec(column.spec)[1].name
            blocks[at] = as_stored(used.backbone.read(values, (name,))[name], column.spec)
    rows = len(next(iter(pixels.values())))
    for at, column in enumerate(run.features):  # what is not needed may be anything
        blocks.setdefault(at, np.zeros((rows, *(column.shape or (column.width,))), np.float32))
    X: Any = concatenate([blocks[at] for at in range(len(run.features))])
    return predict_expected(run.estimator, X, run.expectation)


def run_file(path: str | Path, pixels: dict[str, NDArray[np.uint8]]) -> dict[str, F32]:
    """Run a graph in ONNX Runtime on images, a few at a time: what it gives, by name."""
    session = open_session(str(path))
    names = [value.name for value in session.get_outputs()]
    given = [value.name for value in session.get_inputs()]
    rows = len(next(iter(pixels.values())))
    found = []
    for start in range(0, rows, BATCH):
        found.append(session.run(names, {name: pixels[name][start : start + BATCH] for name in given}))
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*found, strict=True), strict=True)}


def save_golden(path: Path, arrays: dict[str, NDArray[Any]], origin: str) -> None:
    """Write a golden set: an ``.npz`` file of arrays by name, with its `origin` as a string.

    Not compressed: then any language reads it in a few lines.
    """
    with path.open("wb") as file:
        np.savez(file, **arrays, origin=np.array(origin))  # type: ignore[arg-type]
