"""The map as a table: vectors, places and neighbours in the columns that the tool embedding-atlas reads."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.destination import require_earlier_output, require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.files import write_atomically
from img2prompt_cache.reporting.nearest import nearest_rows
from img2prompt_cache.reporting.pictures import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.reporting.material import Material
    from img2prompt_cache.reporting.sections.map import MapSection, Named

SUFFIX = ".parquet"
MARK = {b"made-by": b"img2prompt-cache report"}
"""Metadata of the file; nothing but a file with it is replaced."""
NEIGHBOURS = 10


def check_atlas(path: Path, *, overwrite: bool) -> None:
    """Refuse early to replace what is no earlier table of a map, or an earlier one without `overwrite`.

    Raises
    ------
    UsageError
        If something is at that path, it has another extension, or lies among the files of a cache or run.
    """
    require_free_place(path, "atlas")
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"`atlas` {path}: the extension must be {SUFFIX}", parameter="atlas")
    if path.is_dir():
        raise UsageError(f"`atlas` {path} is a folder; name a file", parameter="atlas")
    if not path.parent.is_dir():
        raise UsageError(
            f"`atlas` {path}: the folder {path.parent} does not exist; make it first", parameter="atlas"
        )
    if os.path.lexists(path) and not overwrite:
        raise UsageError(
            f"`atlas` {path} exists; give `overwrite=True` to replace it, or another name", parameter="atlas"
        )
    require_earlier_output(path, "atlas", "report", _is_ours)


def write_atlas(path: Path, section: MapSection | None, material: Material) -> None:
    """Write the points of a map as a parquet table, one row for each.

    Columns are `imgId`, `prompt`, `embedding` (float32, unit norm), `projection_x` and `projection_y` of the
    prompts and `image_x` and `image_y` of the images (both in 0…1), `neighbors` (`ids` are numbers of rows of
    this table from 0, the nearest first, and `distances` are 1 − cosine of the embeddings), `cluster`,
    `program`, `cosine` of the best run, and `image` (`bytes` of a WebP thumbnail), which is null where there
    is none.

    Parameters
    ----------
    path : pathlib.Path
    section : MapSection or None
    material : Material
        That the section was made of.

    Raises
    ------
    Img2PromptError
        If there is no map, a part is damaged, or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    cache, target = material.cache, material.target
    if section is None or cache is None or target is None:
        raise Img2PromptError(
            "`atlas` takes a map, and there is none: it needs two good images whose prompts have embeddings",
            parameter="atlas",
        )
    material.pictures.load(section.rows)
    vectors = cache.values(target, np.array(section.rows, np.int64))
    ids, distances = neighbours(vectors)
    lists = pa.list_(pa.int64()), pa.list_(pa.float32())
    columns = {
        "imgId": pa.array(section.ids, pa.string()),
        "prompt": pa.array([material.rows.prompts[row] for row in section.rows], pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    }
    for name, view in zip(("projection", "image"), section.views, strict=False):  # images may have no view
        columns |= {f"{name}_x": pa.array(view.x, pa.float32()), f"{name}_y": pa.array(view.y, pa.float32())}
    columns["neighbors"] = pa.StructArray.from_arrays(
        [pa.array(ids.tolist(), lists[0]), pa.array(distances.tolist(), lists[1])], ["ids", "distances"]
    )
    columns["cluster"] = pa.array(_names(section.clusters, section.cluster), pa.string())
    columns["program"] = pa.array(_names(section.programs, section.program), pa.string())
    columns["cosine"] = pa.array(section.score, pa.float32())
    pictures = [material.pictures[row] for row in section.rows]
    columns["image"] = pa.array(
        [{"bytes": each.thumbnail} if isinstance(each, Picture) else None for each in pictures],
        pa.struct([("bytes", pa.binary())]),
    )
    file = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(MARK), file)
    try:
        write_atomically(path, file.getvalue())
    except OSError as error:
        raise Img2PromptError(
            f"`atlas` {path} cannot be written: {error.strerror or error}", parameter="atlas"
        ) from None


def neighbours(
    vectors: NDArray[np.float32], k: int = NEIGHBOURS
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the nearest other rows of each row, and 1 − cosine of each.

    Parameters
    ----------
    vectors : numpy.ndarray, float32, shape (n, d)
        Unit norm; n is at least 2.
    k : int
        n − 1 at most are found.

    Returns
    -------
    rows : numpy.ndarray, int64, shape (n, k)
        The nearest first.
    distances : numpy.ndarray, float32, shape (n, k)
        0…2.
    """
    rows = np.arange(len(vectors), dtype=np.int64)
    k = min(k, len(vectors) - 1)
    found, cosines = nearest_rows(vectors, rows, rows, rows, lambda part: vectors[part], k)
    return found, np.clip(1 - cosines, 0, 2)


def _names(named: list[Named], label: list[int]) -> list[str | None]:
    return [named[number].name if number >= 0 else None for number in label]


def _is_ours(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowException:
        return False
    return metadata.items() >= MARK.items()
