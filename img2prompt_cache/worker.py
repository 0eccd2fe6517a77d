"""A worker: a slice of the row table goes in, finished part files come out. No shared state, no manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache import FAILED, OK, ROW_COLUMNS, extra_dataset
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.manifest import Column, Part, part_file
from img2prompt_cache.parts import PartFile
from img2prompt_cache.reader import Batch, Clock, Image, Slice, encode_batches

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
    lanes: int | None = None,
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
    lanes : int, optional
        As for `encode_batches`.

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
    models = [backbones[column.spec] for column in features]
    names = {column.spec: part_file(column.folder, rows.number) for column in columns}
    images: list[Image] = []
    with ExitStack() as stack:
        files = {spec: stack.enter_context(PartFile(folder / name)) for spec, name in names.items()}
        for column in features:
            files[column.spec].create("values", (len(rows), *column.shape), column.dtype)
        for batch in encode_batches(rows, source, models, batch_size, lanes):
            clock.add(batch.clock)
            images += batch.images
            with clock.timed("write"):
                for backbone in models:
                    file = files[backbone.spec]
                    file.write("values", batch.first, _values(backbone, batch, file))
            on_batch(len(batch.images))
        missing = [rows.start + i for i, image in enumerate(images) if image.reason and rows.was_good(i)]
        with clock.timed("write"):
            if "" in files:
                _write_rows(files[""], rows, images)
            parts = []
            for column in columns:
                size, sha256 = files[column.spec].commit()
                left = tuple(missing) if column.kind == "features" else ()
                stop = rows.start + len(rows)
                parts.append((column, Part(names[column.spec], rows.start, stop, size, sha256, left)))
    return parts


def _values(backbone: Backbone, batch: Batch, file: PartFile) -> NDArray[np.float16]:
    """What a batch adds to a column: its features, copies for twins, NaN for images that are no good."""
    values = np.full((len(batch.images), backbone.dim), np.nan, np.float16)
    if batch.fresh:
        with np.errstate(over="ignore"):
            values[batch.fresh] = batch.features[backbone.spec]
        bad = [i for i in batch.fresh if not np.isfinite(values[i]).all()]
        if bad:
            raise Img2PromptError(
                f"{backbone.spec} gave a value that is not finite or too large for float16 in precision "
                f"{backbone.precision}, at row {batch.first + bad[0]} of the part; try --precision fp32"
            )
    for i, image in enumerate(batch.images):
        if not image.reason and image.twin >= 0:
            at = image.twin - batch.first
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
