"""A matrix made row by row and read back at will, kept on the disk in the place of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def spill(pieces: Iterable[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """Write rows to a nameless temporary file and map it; it is gone once the array is.

    Parameters
    ----------
    pieces : iterable of numpy.ndarray, float32, shape (m, width)
        At least one row in all.
    width : int

    Returns
    -------
    numpy.ndarray, float32, shape (n, width)
        Read-only.

    Raises
    ------
    Img2PromptError
        If there is no room for it.
    """
    try:
        # Written, not assigned to a map: a disk that is full is then an error and not a signal.
        with tempfile.TemporaryFile() as file:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, np.float32).data)
            file.flush()
            flat = np.memmap(file, np.float32, "r")
    except OSError as error:
        raise Img2PromptError(
            f"what is worked out cannot be kept in {tempfile.gettempdir()}: {error.strerror}; make room, or "
            "name another folder by TMPDIR"
        ) from error
    return flat.view(np.ndarray).reshape(-1, width)
