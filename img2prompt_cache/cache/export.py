"""One portable HDF5 file with every column of a cache, as plain datasets."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from img2prompt_cache.cache.damage import require_undamaged
from img2prompt_cache.cache.identity import recorded_identity
from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.part_text import read_rows_part
from img2prompt_cache.cache.parts import PartFile, map_values
from img2prompt_cache.cache.quantise import NO_CODE
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.destination import require_earlier_output, require_free_place
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.progress import Callback, ignore, task

SUFFIXES = (".h5", ".hdf5")
_BLOCK = 1 << 24


def pack(cache: Cache, out: Path, *, overwrite: bool = False, tell: Callback = ignore) -> int:
    """Write a cache as one file, part by part; it appears under its name only when it is whole.

    It holds the datasets of `cache.h5` under the same paths, contiguous: ``rows/imgId`` and the others as
    UTF-8 strings, ``features/timm-resnet50.a1_in1k`` (rows, 2048), … with `spec` and `fingerprint` (JSON) as
    attributes. Rows that a column does not have, or whose image could not be used, are NaN; in int8,
    the former are -128.

    Parameters
    ----------
    cache : Cache
    out : pathlib.Path
        The file to write.
    overwrite : bool
        Replace it if it is there.
    tell : callable
        Takes the events of the task ``"pack"``, in parts.

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    UsageError
        If `out` has another extension than ``.h5`` or ``.hdf5``, exists and is not to be replaced or no file
        that this made, or would lie among the files of a cache or run.
    Img2PromptError
        If a part is damaged, or there is too little room.
    """
    _require_free(cache, out, overwrite)
    manifest = cache.manifest
    total = sum(len(column.parts) for column in manifest.columns)
    with task(tell, "pack", total) as advance, PartFile(out, tidy=True) as file:
        for column in manifest.columns:
            texts = list(manifest.row_datasets.values()) if column.kind == "rows" else []
            for name in texts:
                file.create(f"rows/{name}", (cache.rows,), "text")
            for name, (shape, dtype) in column.datasets.items():
                file.create(_path(column, name), (cache.rows, *shape), dtype)
            if column.spec:
                file.describe(column.folder, spec=column.spec, fingerprint=json.dumps(column.fingerprint))
            for part in column.parts:
                require_undamaged(cache.folder, column, [part])
                rows, source = part.stop - part.start, cache.path(part)
                for name, values in read_rows_part(cache.folder, column, part, texts).items():
                    file.write(f"rows/{name}", part.start, np.array(values, object))
                for name, (shape, dtype) in column.datasets.items():
                    identity = recorded_identity(column, part)
                    mapped = map_values(source, name, (rows, *shape), dtype, identity)
                    for block in _blocks(rows, mapped.nbytes):
                        file.write(_path(column, name), part.start + block.start, mapped[block])
                advance(1)
            for name, (shape, dtype) in column.datasets.items():
                empty = np.nan if dtype.startswith("float") else NO_CODE
                for block in _blocks(*_gap(cache, column, shape)):
                    nothing = np.full((block.stop - block.start, *shape), empty, dtype)
                    file.write(_path(column, name), column.rows + block.start, nothing)
        return file.commit()[0]


def _gap(cache: Cache, column: Column, shape: tuple[int, ...]) -> tuple[int, int]:
    """Say how many rows a column does not have yet, and how many bytes they take at most."""
    rows = cache.rows - column.rows
    return rows, 4 * rows * math.prod(shape)


def _path(column: Column, dataset: str) -> str:
    return column.folder if dataset == "values" else f"{column.folder}.{dataset}"


def _blocks(rows: int, size: int) -> Iterator[slice]:
    """Cut `rows` rows of `size` bytes in all into pieces that fit easily into memory."""
    step = max(1, rows * _BLOCK // max(size, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _is_packed(path: Path) -> bool:
    import h5py

    with h5py.File(path) as file:  # raises OSError on anything else
        return "rows/imgId" in file


def _require_free(cache: Cache, out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise UsageError(f"{out} is a folder; name a file", parameter="out")
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out}: the extension must be one of {', '.join(SUFFIXES)}", parameter="out")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; `overwrite=True` replaces it", parameter="out")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", parameter="out")
    require_free_place(out, "out")
    require_earlier_output(out, "out", "pack", _is_packed)
    needed = sum(column.bytes for column in cache.manifest.columns)
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise Img2PromptError(
            f"{out} needs about {needed / 1e6:,.0f} MB, and the disk has {free / 1e6:,.0f} MB left; make "
            "room or name another place"
        )
