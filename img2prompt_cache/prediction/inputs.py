"""Inputs of prediction: images named by paths, a cache, or features; and the cache of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from img2prompt_cache.cache.manifest_file import NAME as MANIFEST
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.destination import refuse_url
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Images: TypeAlias = (
    "str | Path | Cache | NDArray[Any] | Sequence[str | Path] | Sequence[Sequence[float]] | None"
)
"""What `predict` takes: images named by paths, a cache, features of shape (n, p), or None."""


def given_features(images: Images) -> NDArray[Any] | None:
    """Give the features where these were given in place of images; None where they were not.

    Raises
    ------
    UsageError
        If they are neither features nor anything else that `predict` takes.
    """
    if images is None or isinstance(images, str | os.PathLike | Cache):
        return None
    if not isinstance(images, np.ndarray) and all(isinstance(each, str | os.PathLike) for each in images):
        return None
    try:
        return np.asarray(images, np.float32)
    except (TypeError, ValueError):
        raise UsageError(
            "`images` must be paths, a cache, or features of shape (n, p)", parameter="images"
        ) from None


def given_paths(images: Any) -> list[Path]:
    """Give the paths that were named, none for a cache or for None; no features."""
    if images is None or isinstance(images, Cache):
        return []
    paths = [images] if isinstance(images, str | os.PathLike) else [*images]
    for path in paths:
        refuse_url(os.fspath(path), "images", "cache its images with `extract()`, and predict for the cache")
    return [Path(path) for path in paths]


def given_cache(images: Images) -> Cache | None:
    """Give the cache in place of images, also one that is named by its folder; None for anything else."""
    if isinstance(images, Cache):
        return images
    named = [images] if isinstance(images, str | os.PathLike) else images
    only = next(iter(named)) if named is not None and len(named) == 1 else None
    return (
        Cache(Path(only))
        if isinstance(only, str | os.PathLike) and (Path(only) / MANIFEST).is_file()
        else None
    )
