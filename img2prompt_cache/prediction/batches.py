"""Batches of predictions: a fitted head on what `predict` was given: features, rows of a cache, or images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.numerics import workers
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.expectation import predict_expected
from img2prompt_cache.prediction.inputs import Images, given_cache, given_paths
from img2prompt_cache.prediction.outside import OutsideColumns, of_images
from img2prompt_cache.prediction.own_prompts import open_own_prompts
from img2prompt_cache.prediction.predictions import Predictions
from img2prompt_cache.prediction.stream import (
    load_backbones,
    predict_cached,
    predict_images,
    predict_shared,
)
from img2prompt_cache.progress import Callback, task, warn
from img2prompt_cache.sources import list_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.prediction.fitted import Fitted
    from img2prompt_cache.prediction.result_files import ResultFiles


def predict_features(fitted: Fitted, estimator: Head, rows: NDArray[Any]) -> Predictions:
    """Predict for features, shape (n, p), joined as the run was fitted on them; their numbers are the ids.

    Raises
    ------
    UsageError
        If they have another width.
    """
    _refuse_workers("features")
    shapes = [column.shape for column in fitted.features]
    width = sum(column.width for column in fitted.features)
    shape = shapes[0] if len(shapes) == 1 and len(shapes[0]) > 1 else (width,)
    if rows.shape[1:] != shape:
        raise UsageError(
            f"`images`: features of shape {rows.shape} were given, and the run takes (n, "
            f"{', '.join(map(str, shape))}) of {' + '.join(column.spec for column in fitted.features)}",
            parameter="images",
        )
    if not len(rows):
        return Predictions([], np.empty((0, fitted.target.width), np.float32))
    vectors, expected = predict_expected(estimator, rows, fitted.expectation)
    return Predictions([str(row) for row in range(len(rows))], vectors, expected=expected)


def find_batches(
    fitted: Fitted,
    estimator: Head,
    images: Images,
    home: Cache | Path | None,
    files: ResultFiles,
    device: str,
    runtime: str,
    tell: Callback,
) -> Iterator[Predictions]:
    """Find out what to predict for, and check that it can be done; then go through it batch by batch.

    Parameters
    ----------
    fitted : Fitted
    estimator : Head
        That of `fitted`, on its device.
    images : path, sequence of paths, Cache or None
        As `predict` takes them, but no features.
    home : Cache or pathlib.Path or None
        The cache of the run.
    files : ResultFiles
        Told what to expect.
    device, runtime : str
    tell : callable

    Raises
    ------
    UsageError, Img2PromptError
        As `predict`.
    """

    def mean() -> NDArray[np.float32]:
        vector: NDArray[np.float32] = unit(fitted.mean_prediction[None])[0]
        return vector

    if images is None and home is None:
        gone = f"the cache of the run is gone ({fitted.cache})" if fitted.cache else "there is no cache"
        raise UsageError(f"{gone}; name images, or a cache with `cache`", parameter="cache")
    cache = open_cache(home) if images is None and home is not None else given_cache(images)
    if cache is not None:
        _refuse_workers("rows of a cache")
        with_prompt = False if images is None else None
        found = predict_cached(
            fitted.features, estimator, cache, with_prompt=with_prompt, expectation=fitted.expectation
        )
        return iter([files.expect_rows(found, mean, tell)])
    source, listing = list_images(given_paths(images))
    for line in listing.summary.notes:
        warn(tell, line)
    table = files.expect(source, listing, mean, tell).table
    outside = OutsideColumns(fitted.features, estimator)
    if outside:
        outside.require(table["imgId"].to_pylist())
    more: dict[str, Any] = {
        "expectation": fitted.expectation,
        "own_prompts": open_own_prompts(home, tell),
        "outside": outside,
    }
    if workers.are_there():
        more |= {"device": device, "runtime": runtime}
        stream = predict_shared(estimator, fitted.features, source, table, **more)
    else:
        backbones = load_backbones(of_images(fitted.features), device, runtime=runtime, tell=tell)
        stream = predict_images(estimator, backbones, source, table, **more)
    return _told(stream, len(table), tell)


def _refuse_workers(what: str) -> None:
    if workers.are_there():
        raise UsageError(
            f'`engine="ray"` encodes and predicts images; {what} are predicted here, without it: leave '
            "`engine` out",
            parameter="engine",
        )


def _told(batches: Iterator[Predictions], total: int, tell: Callback) -> Iterator[Predictions]:
    """Tell how many images are done."""
    with task(tell, "predict", total) as advance:
        for batch in batches:
            advance(len(batch.ids) + len(batch.failed))
            yield batch
