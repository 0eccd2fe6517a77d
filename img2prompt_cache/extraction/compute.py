"""A worker: a slice of the row table goes in, finished part files come out. No shared state, no manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.manifest import Column, Part, part_file
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.quantise import quantise
from img2prompt_cache.cache.reader import FAILED, OK, ROW_COLUMNS, extra_dataset
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.clock import Clock
from img2prompt_cache.extraction.encode import Batch, Image, encode_batches
from img2prompt_cache.extraction.work import Slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.backbones.base import Backbone
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
        `rows`, feature, trunk and view columns to compute.
    source : Source
        Gives the images' bytes.
    backbones : mapping of str to Backbone
        By spec of the column; one for each that is not `rows`.
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
    encoded = [column for column in columns if column.kind != "rows"]
    models = {column.spec: backbones[column.spec] for column in encoded}
    names = {column.spec: part_file(column.folder, rows.number) for column in columns}
    images: list[Image] = []
    with ExitStack() as stack:
        files = {spec: stack.enter_context(PartFile(folder / name)) for spec, name in names.items()}
        for column in encoded:
            for name, (shape, dtype) in column.datasets.items():
                files[column.spec].create(name, (len(rows), *shape), dtype)
        for batch in encode_batches(rows, source, models, batch_size, lanes):
            clock.add(batch.clock)
            images += batch.images
            with clock.timed("write"):
                for column in encoded:
                    file = files[column.spec]
                    for name, values in _values(column, models[column.spec], batch, file).items():
                        file.write(name, batch.first, values)
            on_batch(len(batch.images))
        missing = [rows.start + i for i, image in enumerate(images) if image.reason and rows.was_good(i)]
        with clock.timed("write"):
            if "" in files:
                _write_rows(files[""], rows, images)
            parts = []
            for column in columns:
                size, sha256 = files[column.spec].commit()
                left = tuple(missing) if column.kind != "rows" else ()
                stop = rows.start + len(rows)
                parts.append((column, Part(names[column.spec], rows.start, stop, size, sha256, left)))
    return parts


def _values(column: Column, backbone: Backbone, batch: Batch, file: PartFile) -> dict[str, NDArray[Any]]:
    """What a batch adds to each dataset of a column: its features, copies for twins, NaN for bad images."""
    made = _stored(column, backbone, batch) if batch.fresh else {}
    values = {}
    for name, (shape, dtype) in column.datasets.items():
        # There is no NaN in int8: its scale says it.
        empty = np.nan if dtype.startswith("float") else 0
        values[name] = np.full((len(batch.images), *shape), empty, dtype)
        if batch.fresh:
            values[name][batch.fresh] = made[name]
        for i, image in enumerate(batch.images):
            if not image.reason and image.twin >= 0:
                at = image.twin - batch.first
                values[name][i] = values[name][at] if at >= 0 else file.read(name, image.twin)
    return values


def _stored(column: Column, backbone: Backbone, batch: Batch) -> dict[str, NDArray[Any]]:
    """The features of a batch as the datasets of a column keep them."""
    with np.errstate(over="ignore"):
        values = batch.features[column.spec].astype(np.float16, copy=False)
    whole = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not whole.all():
        row = batch.first + batch.fresh[int(whole.argmin())]
        raise Img2PromptError(
            f"{column.spec} gave a value that is not finite or too large for float16 in precision "
            f"{backbone.precision}, at row {row} of the part; try --precision fp32"
        )
    if column.dtype != "int8":
        return {"values": values}
    codes, scale = quantise(values, lead=2 if column.kind == "views" else 1)
    return {"values": codes, "scale": scale}


def _write_rows(file: PartFile, rows: Slice, images: list[Image]) -> None:
    text = {
        **rows.text,
        "sha256": [image.sha256 for image in images],
        "status": [FAILED if image.reason else OK for image in images],
        "reason": [image.reason for image in images],
    }
    for name, values in text.items():
        file.write_text(name if name in ROW_COLUMNS else extra_dataset(name), values)
