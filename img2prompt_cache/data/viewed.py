"""What backbones said of augmented views of the images of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.taps import split_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.cache.manifest import Column
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.dataset import Dataset


def load_views(cache: Cache, data: Dataset) -> NDArray[np.float16]:
    """Read what the backbones of a dataset said of augmented views of its images, joined.

    A view of one number is the same of an image for every backbone. Where they were asked for different
    numbers of views, the first ones that all have are taken; an image that has none stands for its views.

    Returns
    -------
    numpy.ndarray, float16, shape (n, v, p)

    Raises
    ------
    UsageError
        If the views of a backbone are not cached, or of one only mirrored and of another only not.
    Img2PromptError
        If a part is damaged.
    """
    chosen = next(filter(all, (_views_of(cache, data.features, flip) for flip in (False, True))), None)
    if chosen is None:
        specs = ", ".join(column.spec for column in data.features)
        raise UsageError(
            f"views=true takes views of {specs}: run `img2prompt-cache extract --views N` for them all"
        )
    columns = [column for column in chosen if column]
    cache.require_undamaged(columns)
    count = min(column.shape[0] for column in columns)
    parts = [cache.mapped(column, "float16")[data.rows][:, :count] for column in columns]
    views: NDArray[np.float16] = np.concatenate(parts, axis=2)
    lost = ~np.isfinite(views).all(axis=(1, 2))
    views[lost] = data.X[lost, None]
    return views


def _views_of(cache: Cache, features: tuple[Column, ...], flip: bool) -> list[Column | None]:
    """Find for each feature column the complete one of most of its views."""
    found: dict[tuple[str, str], Column] = {}
    for column in cache.manifest.of_kind("views"):
        spec, tap = split_spec(column.spec)
        if tap.flip == flip and column.rows == cache.rows:
            best = found.setdefault((spec, tap.name), column)
            if column.shape[0] > best.shape[0]:
                found[spec, tap.name] = column
    wanted = (split_spec(column.spec) for column in features)
    return [found.get((spec, tap.name)) for spec, tap in wanted]
