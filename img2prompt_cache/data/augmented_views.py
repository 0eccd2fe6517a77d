"""Features of augmented views (random crops with other colours) of the images of a dataset."""

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
    """Read the features of augmented views of a dataset's images, backbones side by side.

    View number i of an image is the same crop for every backbone. Where backbones have different numbers of
    views, the views that all of them have are used. An image whose views could not be computed is used in
    their place.

    Returns
    -------
    numpy.ndarray, float16, shape (n, v, p)

    Raises
    ------
    UsageError
        If a backbone has no cached views, or one backbone has only mirrored views and another only unmirrored
        ones.
    Img2PromptError
        If a part is damaged.
    """
    chosen = next(filter(all, (_view_columns(cache, data.features, flip) for flip in (False, True))), None)
    if chosen is None:
        specs = ", ".join(column.spec for column in data.features)
        raise UsageError(
            f"views=true takes views of {specs}: run `extract(views=N)` for them all", parameter="views"
        )
    columns = [column for column in chosen if column]
    cache.require_undamaged(columns)
    count = min(column.shape[0] for column in columns)
    parts = [cache.mapped(column, "float16")[data.rows][:, :count] for column in columns]
    views: NDArray[np.float16] = np.concatenate(parts, axis=2)
    failed = ~np.isfinite(views).all(axis=(1, 2))
    views[failed] = np.asarray(data.X)[failed, None]
    return views


def _view_columns(cache: Cache, features: tuple[Column, ...], flip: bool) -> list[Column | None]:
    """Find for each feature column the complete column with the most views of it."""
    found: dict[tuple[str, str], Column] = {}
    for column in cache.manifest.of_kind("views"):
        spec, tap = split_spec(column.spec)
        if tap.flip == flip and column.rows == cache.rows:
            best = found.setdefault((spec, tap.name), column)
            if column.shape[0] > best.shape[0]:
                found[spec, tap.name] = column
    wanted = (split_spec(column.spec) for column in features)
    return [found.get((spec, tap.name)) for spec, tap in wanted]
