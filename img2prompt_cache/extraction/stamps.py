"""The size and time of every cached image's file, as they were when it was listed.

They are a hint: a row whose file has another size or time may have another image, so its bytes are compared
with the hash that the row keeps. The file may be deleted at any time; then the next pass takes for unchanged
what it finds. It is no part, because sizes and times say nothing about the contents: a copy of the images has
other times and gives the same parts.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.files import write_atomically
from img2prompt_cache.sources.stamps import UNKNOWN

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from img2prompt_cache.sources.base import Source

FILE = "stamps.npy"
OUTDATED = -2
"""In the place of both numbers, if the image is known to be another one than the cached one."""


def list_stamps(source: Source, table: pa.Table) -> NDArray[np.int64]:
    """Look up the stamps of a listing of n rows: int64, shape (n, 2); `UNKNOWN` where the source has none."""
    look_up = getattr(source, "stamps", None)
    if look_up is None:
        return np.full((len(table), 2), UNKNOWN, np.int64)
    found: NDArray[np.int64] = look_up(table["uri"])
    return found


def load_stamps(folder: Path, rows: int) -> NDArray[np.int64]:
    """Read the stamps of the rows of a cache: int64, shape (rows, 2); `UNKNOWN` where none is kept."""
    stamps = np.full((rows, 2), UNKNOWN, np.int64)
    if not (folder / FILE).is_file():
        return stamps
    try:
        kept = np.load(folder / FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return stamps
    if isinstance(kept, np.ndarray) and kept.dtype == np.int64 and kept.ndim == 2 and kept.shape[1] == 2:
        stamps[: len(kept)] = kept[:rows]
    return stamps


def save_stamps(folder: Path, stamps: NDArray[np.int64]) -> None:
    """Keep the stamps of every row."""
    data = io.BytesIO()
    np.save(data, stamps, allow_pickle=False)
    write_atomically(folder / FILE, data.getvalue())
