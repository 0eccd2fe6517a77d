"""Caches as the verbs take them: named by their folder, or open already."""

from __future__ import annotations

from pathlib import Path

from img2prompt_cache.cache.reader import Cache


def open_cache(cache: str | Path | Cache) -> Cache:
    """Open a cache that is named by its folder; one that is open stays so, and sees what it saw.

    Raises
    ------
    UsageError, Img2PromptError
        As `Cache`.
    """
    return cache if isinstance(cache, Cache) else Cache(cache)


def folder_of(cache: str | Path | Cache) -> Path:
    """Give the folder of a cache, whether there is one or not."""
    return cache.folder if isinstance(cache, Cache) else Path(cache)
