"""Own prompts: those of pictures that are in a cache already, which are found by the bytes of their files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.progress import Callback, ignore, warn

if TYPE_CHECKING:
    from pathlib import Path


class OwnPrompts:
    """The prompts of the pictures of a cache, found by the SHA-256 of the pictures' bytes.

    It takes 16 bytes of memory for each row, until a picture is found for the first time.

    Parameters
    ----------
    cache : Cache

    Raises
    ------
    Img2PromptError
        If its rows are damaged.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        digests = cache.table("sha256")["sha256"]
        hashes = [hash(each) for chunk in digests.chunks for each in chunk.to_pylist()]
        known = np.array(hashes, np.int64)
        self._rows = np.argsort(known, kind="stable")
        self._hashes = known[self._rows]

    def find(self, digests: Sequence[str]) -> list[str | None]:
        """Find the prompt of each picture.

        Parameters
        ----------
        digests : sequence of str, length n
            SHA-256 of each picture's bytes, in hexadecimal digits.

        Returns
        -------
        list of str or None, length n
            The first prompt of the first usable row with these bytes; None where no row with a prompt has
            them.
        """
        return [self._prompt(digest) for digest in digests]

    def _prompt(self, digest: str) -> str | None:
        key = hash(digest)
        low, high = (int(np.searchsorted(self._hashes, key, side)) for side in ("left", "right"))
        for row in self._rows[low:high].tolist():  # in their order; texts that differ may have one hash
            prompt: str = self._text["prompt"][row]
            if self._text["sha256"][row] == digest and self._text["status"][row] == OK and prompt.strip():
                return prompt
        return None

    @cached_property
    def _text(self) -> dict[str, list[str]]:
        return self._cache.text("sha256", "prompt", "status")


def open_own_prompts(home: Cache | Path | None, tell: Callback = ignore) -> OwnPrompts | None:
    """Look up pictures in a cache; None where there is none, and, with a note, where it cannot be read."""
    if home is None:
        return None
    try:
        return OwnPrompts(open_cache(home))
    except Img2PromptError as error:
        warn(tell, f"whether an image is in the cache cannot be told: {error}")
        return None
