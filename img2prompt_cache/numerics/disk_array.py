"""A matrix that is written once, row by row, and kept in a temporary file instead of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_disk(pieces: Iterable[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """Write rows to a temporary file without a name and memory-map it; it disappears with the array.

    Parameters
    ----------
    pieces : iterable of numpy.ndarray, float32, shape (m, width)
        Rows, in pieces; at least one row in total.
    width : int

    Returns
    -------
    numpy.ndarray, float32, shape (n, width)
        Read-only.

    Raises
    ------
    Img2PromptError
        If the disk has too little room.
    """
    try:
        # Writing to the file, unlike assigning to a memory map, raises an error when the disk is full, where
        # the map would end the process with a signal.
        with tempfile.TemporaryFile() as file:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, np.float32).data)
            file.flush()
            flat = np.memmap(file, np.float32, "r")
    except OSError as error:
        raise Img2PromptError(
            f"intermediate results cannot be kept in {tempfile.gettempdir()}: {error.strerror}; make room, "
            "or name another folder by TMPDIR"
        ) from error
    return flat.view(np.ndarray).reshape(-1, width)
