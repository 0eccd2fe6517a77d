"""`cache.h5`: virtual datasets over all parts, for any HDF5 reader. Rebuilt at will, never the truth."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from img2prompt_cache.cache import ROW_COLUMNS, VIEW, extra_dataset
from img2prompt_cache.manifest import NAME as MANIFEST
from img2prompt_cache.manifest import Column, Manifest
from img2prompt_cache.parts import hash_file, sync_folder

_MADE_FOR = "manifest"


def build_view(folder: Path, manifest: Manifest) -> Path:
    """Write `cache.h5` anew.

    It holds `rows/imgId`, `rows/prompt` and the others as UTF-8 strings, and one dataset for each numeric
    column at its folder's path, e.g. ``features/timm-resnet50.a1_in1k`` (rows, 2048). Rows a column does not
    have yet read as NaN. The scale of an int8 column lies beside it, with ``.scale`` behind its name.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path = folder / VIEW
    temporary = folder / f".{VIEW}.tmp"
    rows = manifest.columns[0]
    with h5py.File(temporary, "w", libver="latest") as file:
        names = [*ROW_COLUMNS, *(extra_dataset(name) for name in manifest.extra)]
        file.attrs[_MADE_FOR] = hash_file(folder / MANIFEST)
        for name in names:
            _virtual(file, f"rows/{name}", rows, name, manifest.rows)
        for column in manifest.columns[1:]:
            for name in column.datasets:
                target = column.folder if name == "values" else f"{column.folder}.{name}"
                _virtual(file, target, column, name, manifest.rows)
            file[column.folder].attrs["spec"] = column.spec
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(path)
    sync_folder(folder)
    return path


def view_is_current(folder: Path) -> bool:
    """Say whether `cache.h5` is there and was built for the manifest as it is now."""
    try:
        with h5py.File(folder / VIEW, "r") as file:
            return bool(file.attrs[_MADE_FOR] == hash_file(folder / MANIFEST))
    except (OSError, KeyError, RuntimeError, ValueError):  # what h5py raises on damaged bytes
        return False


def _virtual(file: h5py.File, target: str, column: Column, dataset: str, rows: int) -> None:
    each, kind = column.datasets.get(dataset, ((), "text"))
    dtype = h5py.string_dtype("utf-8") if kind == "text" else np.dtype(kind)
    layout = h5py.VirtualLayout((rows, *each), dtype=dtype)
    for part in column.parts:
        shape = (part.stop - part.start, *each)
        layout[part.start : part.stop] = h5py.VirtualSource(part.file, dataset, shape, dtype=dtype)
    fill = np.nan if kind.startswith("float") else None
    file.create_virtual_dataset(target, layout, fillvalue=fill)
