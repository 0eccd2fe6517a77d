"""The parts of a pass that are made from images: a slice of rows goes in, finished part files come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.identity import identity_of
from img2prompt_cache.cache.manifest import PART_SCHEMA, Column, Part, part_file, row_dataset
from img2prompt_cache.cache.parts import PartFile
from img2prompt_cache.cache.quantise import quantise
from img2prompt_cache.cache.reader import FAILED, OK
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.extraction.encode import Batch, Image, encode_batches
from img2prompt_cache.extraction.report import Clock
from img2prompt_cache.extraction.work import Job, Pass, Slice, image_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.sources.base import Source


def _ignore(rows: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Worker:
    """Computes parts, one after the other. It writes files and nothing else: no manifest, no shared state.

    Attributes
    ----------
    backbone_of : callable
        Gives the backbone of a feature, trunk or view column: `Models.backbone`.
    batch_size : int
        Rows encoded together. Batches begin at the slice's start, so they never cross a part's edge.
    lanes : int or None
        As for `encode.encode_batches`.
    on_batch : callable
        Called after each batch with the number of rows it had.
    clock : Clock
        Charged with the time of each stage.
    """

    backbone_of: Callable[[Column], Backbone]
    batch_size: int
    lanes: int | None = None
    on_batch: Callable[[int], None] = _ignore
    clock: Clock = field(default_factory=Clock)

    def compute_job(self, work: Pass, job: Job, folder: Path) -> list[tuple[Column, Part]]:
        """Compute the image columns of a job of a pass, as `compute` does."""
        columns = image_columns(job)
        parts = self.compute(work.rows(job), columns, work.sources[job.source], folder)
        return [(c, replace(p, source=job.source) if c.kind == "rows" else p) for c, p in parts]

    def compute(
        self,
        rows: Slice,
        columns: Sequence[Column],
        source: Source,
        folder: Path,
        schema: int = PART_SCHEMA,
    ) -> list[tuple[Column, Part]]:
        """Read and decode the images of a slice once and write every column asked for.

        Parameters
        ----------
        rows : Slice
            The rows.
        columns : sequence of Column
            `rows`, feature, trunk and view columns to compute.
        source : Source
            Gives the images' bytes.
        folder : pathlib.Path
            Where the parts are written: the cache's folder, or one from which they are moved there later.
        schema : int
            Of the parts.

        Returns
        -------
        list of (Column, Part)
            What was written, for the manifest. On any error no file has its final name.

        Raises
        ------
        Img2PromptError
            If a feature does not fit float16: not finite, or too large.
        """
        backbones = {column.spec: self.backbone_of(column) for column in columns if column.kind != "rows"}
        names = {column.spec: part_file(column.folder, rows.number) for column in columns}
        encoded = [column for column in columns if column.kind != "rows"]
        images: list[Image] = []
        stop = rows.start + len(rows)
        with ExitStack() as stack:
            files = {
                column.spec: stack.enter_context(
                    PartFile(folder / names[column.spec], identity_of(column, rows.start, stop, schema))
                )
                for column in columns
            }
            for column in encoded:
                for name, (shape, dtype) in column.datasets.items():
                    files[column.spec].create(name, (len(rows), *shape), dtype)
            for batch in encode_batches(rows, source, backbones, self.batch_size, self.lanes):
                self.clock.add(batch.clock)
                images += batch.images
                with self.clock.timed("write"):
                    for column in encoded:
                        file = files[column.spec]
                        for name, values in _values(column, backbones[column.spec], batch, file).items():
                            file.write(name, batch.first, values)
                self.on_batch(len(batch.images))
            missing = tuple(
                rows.start + i for i, image in enumerate(images) if image.reason and rows.was_good(i)
            )
            with self.clock.timed("write"):
                if "" in files:
                    _write_rows(files[""], rows, images)
                parts = []
                for column in columns:
                    size, sha256 = files[column.spec].commit()
                    left = missing if column.kind != "rows" else ()
                    name = names[column.spec]
                    part = Part(name, rows.start, stop, size, sha256, left, schema=schema)
                    parts.append((column, part))
        return parts


def _values(column: Column, backbone: Backbone, batch: Batch, file: PartFile) -> dict[str, NDArray[Any]]:
    """What a batch adds to each dataset of a column: features, copies for duplicates, NaN for bad images."""
    made = _stored(column, backbone, batch) if batch.fresh else {}
    values = {}
    for name, (shape, dtype) in column.datasets.items():
        # There is no NaN in int8: its scale says it.
        empty = np.nan if dtype.startswith("float") else 0
        values[name] = np.full((len(batch.images), *shape), empty, dtype)
        if batch.fresh:
            values[name][batch.fresh] = made[name]
        for i, image in enumerate(batch.images):
            if not image.reason and image.duplicate_of >= 0:
                at = image.duplicate_of - batch.first
                values[name][i] = values[name][at] if at >= 0 else file.read(name, image.duplicate_of)
    return values


def _stored(column: Column, backbone: Backbone, batch: Batch) -> dict[str, NDArray[Any]]:
    """The features of a batch as the datasets of a column keep them."""
    with np.errstate(over="ignore"):
        values = batch.features[column.spec].astype(np.float16, copy=False)
    finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
        row = batch.first + batch.fresh[int(finite.argmin())]
        raise Img2PromptError(
            f"{column.spec} gave a value that is not finite or too large for float16 in precision "
            f'{backbone.precision}, at row {row} of the part; try `precision="fp32"`'
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
        file.write_text(row_dataset(name), values)
