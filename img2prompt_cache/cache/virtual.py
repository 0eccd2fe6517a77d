"""`cache.h5`: virtual datasets over all parts, for any HDF5 reader; can be made again at any time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from img2prompt_cache.cache.manifest import VIEW, Column, Manifest
from img2prompt_cache.cache.manifest_file import NAME as MANIFEST
from img2prompt_cache.cache.quantise import NO_CODE
from img2prompt_cache.files import hash_file, write_atomically

_MADE_FOR, _NOTES = "manifest", "known"


def build_view(folder: Path, manifest: Manifest, notes: dict[str, Any] | None = None) -> Path:
    """Write `cache.h5`.

    It holds `rows/imgId`, `rows/prompt` and the others as UTF-8 strings, and one dataset for each numeric
    column under the name of its folder, e.g. ``features/timm-resnet50.a1_in1k`` (rows, 2048). Beside an int8
    column lies its scale, with ``.scale`` after the name. Rows that a column does not have yet, and those of
    parts that a reader cannot open, are NaN, -128 in int8, and empty text.

    Parameters
    ----------
    folder : pathlib.Path
    manifest : Manifest
        As saved.
    notes : dict, optional
        What to remember of this state of the cache, as JSON values; `read_notes` gives it back.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path = folder / VIEW
    rows = manifest.columns[0]
    # Made in memory, since HDF5 crashes the process when it cannot write its own file (a full disk).
    with h5py.File(VIEW, "w", libver="latest", driver="core", backing_store=False) as file:
        file.attrs[_MADE_FOR] = hash_file(folder / MANIFEST)
        file.attrs[_NOTES] = json.dumps(notes or {})
        for name in manifest.row_datasets.values():
            _virtual(file, f"rows/{name}", rows, name, manifest.rows)
        for column in manifest.columns[1:]:
            for name in column.datasets:
                target = column.folder if name == "values" else f"{column.folder}.{name}"
                _virtual(file, target, column, name, manifest.rows)
            file[column.folder].attrs["spec"] = column.spec
        file.flush()
        data = file.id.get_file_image()
    write_atomically(path, data)
    return path


def view_is_current(folder: Path) -> bool:
    """Say whether `cache.h5` exists and was built for the manifest as it is now."""
    return read_notes(folder) is not None


def read_notes(folder: Path) -> dict[str, Any] | None:
    """Give the notes in `cache.h5`; None if it was not built for the manifest as it is now."""
    try:
        with h5py.File(folder / VIEW, "r") as file:
            if any(file.attrs.get_id(name).shape != () for name in (_MADE_FOR, _NOTES)):
                return None  # a small file of somebody else could hold one huge text many times
            if file.attrs[_MADE_FOR] != hash_file(folder / MANIFEST):
                return None
            notes = json.loads(file.attrs[_NOTES])
    except (OSError, KeyError, RuntimeError, ValueError, TypeError):  # what h5py raises on damaged bytes
        return None
    return notes if isinstance(notes, dict) else None


def _virtual(file: h5py.File, target: str, column: Column, dataset: str, rows: int) -> None:
    each, kind = column.datasets.get(dataset, ((), "text"))
    dtype = h5py.string_dtype("utf-8") if kind == "text" else np.dtype(kind)
    layout = h5py.VirtualLayout((rows, *each), dtype=dtype)
    for part in column.parts:
        shape = (part.stop - part.start, *each)
        layout[part.start : part.stop] = h5py.VirtualSource(part.file, dataset, shape, dtype=dtype)
    fill = np.nan if kind.startswith("float") else NO_CODE if kind == "int8" else None
    file.create_virtual_dataset(target, layout, fillvalue=fill)
