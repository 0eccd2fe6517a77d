"""A worker: a slice of the row table goes in, finished part files come out. No shared state, no manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache import FAILED, OK, ROW_COLUMNS, extra_dataset
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.manifest import Column, Part, part_file
from img2prompt_cache.parts import PartFile
from img2prompt_cache.reader import Clock, Image, Reader, Slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.backbones.base import Backbone
    from img2prompt_cache.sources.base import Source


def compute_part(
    rows: Slice,
    columns: list[Column],
    source: Source,
    backbones: Mapping[str, Backbone],
    folder: Path,
    *,
    batch_size: int,
    on_batch: Callable[[int], None],
    clock: Clock,
    threads: int | None = None,
) -> list[tuple[Column, Part]]:
    """Read and decode the images of a slice once and write every column asked for.

    Parameters
    ----------
    rows : Slice
        The rows.
    columns : list of Column
        `rows` and feature columns to compute.
    source : Source
        Gives the images' bytes.
    backbones : mapping of str to Backbone
        By spec; one for each feature column.
    folder : pathlib.Path
        The cache's folder.
    batch_size : int
        Rows encoded together. Batches begin at the slice's start, so they never cross a part's edge.
    on_batch : callable
        Told after each batch how many rows were done.
    clock : Clock
        Charged with the time of each stage.
    threads : int, optional
        For reading and decoding; one a core if absent.

    Returns
    -------
    list of (Column, Part)
        What was written, for the manifest. On any error nothing has its final name.

    Raises
    ------
    Img2PromptError
        If a feature does not fit float16: not finite, or too large.
    """
    features = [column for column in columns if column.kind == "features"]
    images = Reader(rows, source, {backbones[c.spec].geometry for c in features}, clock)
    names = {column.spec: part_file(column.folder, rows.number) for column in columns}
    missing: list[int] = []
    with ExitStack() as stack:
        files = {spec: stack.enter_context(PartFile(folder / name)) for spec, name in names.items()}
        for column in features:
            files[column.spec].create("values", (len(rows), *column.shape), column.dtype)
        for first, batch in images.batches(batch_size, threads or os.cpu_count() or 1):
            for column in features:
                file = files[column.spec]
                with clock.timed(column.spec):
                    values = _encode(backbones[column.spec], batch, file, first)
                with clock.timed("write"):
                    file.write("values", first, values)
            if rows.known:
                good = rows.text["status"][first : first + len(batch)]
                missing += [
                    rows.start + first + i for i, image in enumerate(batch) if image.reason and good[i] == OK
                ]
            on_batch(len(batch))
        with clock.timed("write"):
            if "" in files:
                _write_rows(files[""], rows, images.done)
            parts = []
            for column in columns:
                size, sha256 = files[column.spec].commit()
                left = tuple(missing) if column.kind == "features" else ()
                stop = rows.start + len(rows)
                parts.append((column, Part(names[column.spec], rows.start, stop, size, sha256, left)))
    return parts


def _encode(backbone: Backbone, batch: list[Image], file: PartFile, first: int) -> NDArray[np.float16]:
    import torch

    values = np.full((len(batch), backbone.dim), np.nan, np.float16)
    fresh = [i for i, image in enumerate(batch) if not image.reason and image.twin < 0]
    if fresh:
        pixels = np.stack([batch[i].pixels[backbone.geometry] for i in fresh])
        with np.errstate(over="ignore"):
            values[fresh] = backbone.encode(torch.from_numpy(pixels))
        bad = [i for i in fresh if not np.isfinite(values[i]).all()]
        if bad:
            raise Img2PromptError(
                f"{backbone.spec} gave a value that is not finite or too large for float16 in precision "
                f"{backbone.precision}, at row {first + bad[0]} of the part; try --precision fp32"
            )
    for i, image in enumerate(batch):
        if not image.reason and image.twin >= 0:
            at = image.twin - first
            values[i] = values[at] if at >= 0 else file.read("values", image.twin)
    return values


def _write_rows(file: PartFile, rows: Slice, images: list[Image]) -> None:
    text = {
        **rows.text,
        "sha256": [image.sha256 for image in images],
        "status": [FAILED if image.reason else OK for image in images],
        "reason": [image.reason for image in images],
    }
    for name, values in text.items():
        file.write_text(name if name in ROW_COLUMNS else extra_dataset(name), values)
