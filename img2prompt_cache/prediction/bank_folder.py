"""Banks in a folder: prompts with their embeddings as they travel with a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import Img2PromptError, check
from img2prompt_cache.models.encoders.base import MOST_CHARACTERS
from img2prompt_cache.prediction.bank import Bank

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROMPTS, VECTORS = "prompts.json", "vectors.npy"
TENSORS = "vectors.safetensors"
"""In the place of `VECTORS` in the repository of a shared run, which has no other arrays than safetensors."""
MOST_BYTES = 1 << 30
"""Of the prompts that are read."""


def save_bank(folder: Path, bank: Bank, *, shared: bool = False) -> None:
    """Write the prompts and embeddings of a bank; the same bank gives the same bytes.

    Parameters
    ----------
    folder : pathlib.Path
    bank : Bank
    shared : bool
        Write the embeddings as safetensors.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    (folder / PROMPTS).write_text(json.dumps(bank.prompts, indent=0) + "\n", encoding="ascii")
    vectors = np.ascontiguousarray(bank.vectors, np.float32)
    if shared:
        from safetensors.numpy import save_file

        save_file({"vectors": vectors}, folder / TENSORS)
        return
    with (folder / VECTORS).open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


def load_bank(folder: Path, width: int) -> Bank:
    """Read a bank that `save_bank` wrote; its embeddings are mapped, and the search is exact.

    Parameters
    ----------
    folder : pathlib.Path
    width : int
        Values of an embedding.

    Raises
    ------
    Img2PromptError
        If it is damaged, or its embeddings have another width.
    """
    try:
        with (folder / PROMPTS).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        check(len(text) <= MOST_BYTES, f"{PROMPTS} has more than {MOST_BYTES:,} bytes")
        prompts = json.loads(text)
        vectors = _load_vectors(folder)
        check(
            isinstance(prompts, list) and all(isinstance(each, str) and each for each in prompts),
            f"{PROMPTS} is no list of texts",
        )
        "".join(prompts).encode("utf-8", "surrogateescape")  # what cannot be written is no prompt
        check(max(map(len, prompts), default=0) <= MOST_CHARACTERS, "a prompt is too long")
        check(vectors.dtype == np.float32, "their embeddings are not of float32")
        check(vectors.shape == (len(prompts), width), f"embeddings are not of shape {(len(prompts), width)}")
        check(bool(prompts and np.isfinite(vectors).all()), "there is no prompt, or a value is not finite")
    except (OSError, ValueError, RecursionError) as error:
        raise Img2PromptError(f"the prompts in {folder} cannot be read: {error}") from None
    return Bank(prompts, vectors)


def _load_vectors(folder: Path) -> NDArray[np.float32]:
    """Read the embeddings: mapped, or of a shared run from safetensors.

    Raises
    ------
    OSError, ValueError
        If they are missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / TENSORS).is_file():
        mapped: NDArray[np.float32] = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        return mapped
    try:
        found: NDArray[np.float32] = load_file(folder / TENSORS)["vectors"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{TENSORS}: {error}") from None
    return found
