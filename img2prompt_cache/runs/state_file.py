"""The fitted arrays of a head in a safetensors file: written and read without a copy of them in memory."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.numerics.disk_array import map_array, release

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAPPED = 1 << 24
"""Bytes of an array from which on it is memory-mapped; smaller ones are read."""
BLOCK = 1 << 24
"""Bytes that are written at a time."""

_TYPES = {
    name: kind if kind.endswith(("1", "?")) else f"<{kind}"
    for name, kind in (
        *(("U64", "u8"), ("I64", "i8"), ("F64", "f8"), ("F32", "f4"), ("U32", "u4"), ("I32", "i4")),
        *(("F16", "f2"), ("U16", "u2"), ("I16", "i2"), ("I8", "i1"), ("U8", "u1"), ("BOOL", "?")),
    )
}
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}


def write_state(path: Path, state: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as `safetensors.numpy.save_file` does, byte for byte, but some of a large one at a time.

    Parameters
    ----------
    path : pathlib.Path
    state : mapping of str to numpy.ndarray
        May be memory-mapped.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If an array has a type that a safetensors file cannot have.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in state.items()}
    for name, value in arrays.items():
        if value.dtype not in _NAMES:
            raise TypeError(f"array {name!r} is of type {value.dtype}, which cannot be saved")
    # The order of the library: wide types first, so that every array is aligned; then by name.
    order = sorted(arrays, key=lambda name: ([*_TYPES].index(_NAMES[arrays[name].dtype]), name))
    header, start = {}, 0
    for name in order:
        value = arrays[name]
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, start + value.nbytes],
        }
        start += value.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            flat = arrays[name].reshape(-1)
            step = max(1, BLOCK // max(1, flat.itemsize))
            for at in range(0, len(flat), step):
                file.write(flat[at : at + step].data)
                release(flat)


def read_state(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `write_state` or safetensors wrote; large arrays are memory-mapped, and may be written to.

    Writing changes the array, not the file.

    Raises
    ------
    OSError, safetensors.SafetensorError
        If the file cannot be read, or its header does not fit its size.
    """
    from safetensors import safe_open

    found: dict[str, NDArray[Any]] = {}
    with safe_open(
        path, framework="numpy"
    ) as file:  # it checks that arrays lie one after the other in the file
        names = list(file.keys())
        with path.open("rb") as again:
            length = int.from_bytes(again.read(8), "little")
            header = json.loads(again.read(length))
        for name in names:
            kind, shape = _TYPES.get(header[name]["dtype"]), tuple(header[name]["shape"])
            size = 0 if kind is None else math.prod(shape) * np.dtype(kind).itemsize
            if kind is None or size < MAPPED or sys.byteorder != "little":
                found[name] = file.get_tensor(name)
            else:
                offset = 8 + length + header[name]["data_offsets"][0]
                with path.open("rb") as again:
                    found[name] = map_array(again, kind, shape, offset, "c")
    return found
