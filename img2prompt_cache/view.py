"""`cache.h5`: virtual datasets over all parts, for any HDF5 reader. Rebuilt at will, never the truth."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from img2prompt_cache.cache import ROW_COLUMNS, extra_dataset
from img2prompt_cache.manifest import Column, Manifest
from img2prompt_cache.parts import sync_folder

NAME = "cache.h5"


def build_view(folder: Path, manifest: Manifest) -> Path:
    """Write `cache.h5` anew.

    It holds `rows/imgId`, `rows/prompt` and the others as UTF-8 strings, and one dataset for each numeric
    column at its folder's path, e.g. ``features/timm-resnet50.a1_in1k`` (rows, 2048). Rows a column does not
    have yet read as NaN.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path = folder / NAME
    temporary = folder / f".{NAME}.tmp"
    rows = manifest.columns[0]
    with h5py.File(temporary, "w", libver="latest") as file:
        names = [*ROW_COLUMNS, *(extra_dataset(name) for name in manifest.extra)]
        for name in names:
            _virtual(file, f"rows/{name}", rows, name, manifest.rows)
        for column in manifest.columns[1:]:
            _virtual(file, column.folder, column, "values", manifest.rows)
            file[column.folder].attrs["spec"] = column.spec
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(path)
    sync_folder(folder)
    return path


def _virtual(file: h5py.File, target: str, column: Column, dataset: str, rows: int) -> None:
    dtype = h5py.string_dtype("utf-8") if column.dtype == "text" else np.dtype(column.dtype)
    layout = h5py.VirtualLayout((rows, *column.shape), dtype=dtype)
    for part in column.parts:
        shape = (part.stop - part.start, *column.shape)
        layout[part.start : part.stop] = h5py.VirtualSource(part.file, dataset, shape, dtype=dtype)
    fill = np.nan if column.dtype.startswith("float") else None
    file.create_virtual_dataset(target, layout, fillvalue=fill)
