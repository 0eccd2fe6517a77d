"""Text of parts: strings of any length, whose bytes are counted before one is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from img2prompt_cache.cache.identity import Identity, recorded_identity
from img2prompt_cache.cache.manifest import Column, Part
from img2prompt_cache.cache.parts import foreign, opened, own_dataset

_STRING = np.dtype([("bytes", "<u4"), ("heap", "<u8"), ("index", "<u4")])
"""What HDF5 keeps in the place of a string of any length."""


def read_text(
    path: Path, names: list[str], rows: int, identity: Identity | None = None
) -> Mapping[str, list[str]]:
    """Read string datasets of a rows part; `rows` values each.

    In a part, every string takes its own room. In a file of somebody else, many values may be one and the
    same huge string, so their lengths are added up before any is read.

    Raises
    ------
    Img2PromptError
        As `map_values` does, or if there is more text than the file has bytes.
    """
    columns = {}
    with opened(path, identity) as file:
        left = path.stat().st_size
        datasets = {name: _own_text(file, path, name, rows) for name in names}
        for dataset in datasets.values():
            left -= _text_bytes(path, dataset)
            if left < 0:
                raise foreign(path, "it has more text than bytes")
        for name, dataset in datasets.items():
            columns[name] = [value.decode("utf-8", "replace") for value in dataset[()]]
    return columns


def read_rows_part(folder: Path, column: Column, part: Part, names: list[str]) -> Mapping[str, list[str]]:
    """Read string datasets of a part that the manifest records; errors as of `read_text`."""
    return read_text(folder / part.file, names, part.stop - part.start, recorded_identity(column, part))


def _own_text(file: h5py.File, path: Path, name: str, rows: int) -> h5py.Dataset:
    dataset = own_dataset(file, path, name)
    info = h5py.check_string_dtype(dataset.dtype)
    if dataset.shape != (rows,) or info is None or info.encoding != "utf-8" or info.length is not None:
        raise foreign(path, f"{name} is {dataset.dtype} {dataset.shape}, not {rows} UTF-8 strings")
    return dataset


def _text_bytes(path: Path, dataset: h5py.Dataset) -> int:
    """Add up the lengths of strings, as the dataset itself gives them; no string is read."""
    if not len(dataset):
        return 0
    offset = dataset.id.get_offset()
    if offset is None or dataset.file.id.get_create_plist().get_sizes() != (8, 8):
        raise foreign(path, f"{dataset.name} is not stored in one piece")
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(_STRING.itemsize * len(dataset))
    if len(data) < _STRING.itemsize * len(dataset):
        raise foreign(path, "the file is too short")
    return int(np.frombuffer(data, _STRING)["bytes"].sum(dtype=np.uint64))
