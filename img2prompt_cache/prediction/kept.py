"""Embeddings of many texts, computed once and kept in the folder ``banks`` of `weights.home`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.files import Replacement, user_folder
from img2prompt_cache.models.fingerprints import digest
from img2prompt_cache.progress import Callback, task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.encoders.base import Encoder

    F32 = NDArray[np.float32]

CHUNK = 1024
"""Texts encoded in one call: on a CPU about ten seconds, the step of progress."""


def kept_path(content: str, encoder: Encoder) -> Path:
    """Name the file of some texts' embeddings, after what the texts are and what encodes them."""
    key = f"{content}\0{digest(encoder.fingerprint)}"
    return user_folder() / "banks" / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"


def encode_kept(path: Path, texts: Sequence[str], encoder: Encoder, name: str, tell: Callback) -> F32:
    """Embed texts, or read what was kept of them.

    Parameters
    ----------
    path : pathlib.Path
        From `kept_path`.
    texts : sequence of str, length n
    encoder : Encoder
    name : str
        What the task is called.
    tell : callable
        Told of the texts as they are encoded.

    Returns
    -------
    numpy.ndarray, float32, shape (n, dim)
        Unit norm; memory-mapped where it was kept.
    """
    shape = (len(texts), encoder.dim)
    vectors = _load(path, shape)
    if vectors is None:
        vectors = np.empty(shape, np.float32)
        with task(tell, name, len(texts)) as advance:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                vectors[start : start + CHUNK] = encoder.encode(chunk)
                advance(len(chunk))
        made = vectors
        # Without the kept copy the next run is slower, nothing worse.
        with suppress(OSError):
            keep(path, lambda temporary: _save(temporary, made))
    return vectors


def keep(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Replacement(path) as new:
        write(new.temporary)
        new.commit()


def _load(path: Path, shape: tuple[int, int]) -> F32 | None:
    """Map what was kept; None where it is absent or not what was written."""
    try:
        vectors: F32 = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None


def _save(path: Path, vectors: F32) -> None:
    with path.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)
