"""Prediction: a fitted head on images, on rows of a cache or on features, with the nearest prompts."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from img2prompt_cache.cache.manifest_file import NAME as MANIFEST
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.expectation import predict_expected
from img2prompt_cache.prediction.fitted import Fitted
from img2prompt_cache.prediction.known_prompts import KnownPrompts, load_prompts, mean_for_hubs
from img2prompt_cache.prediction.outputs import open_writer, writer_for
from img2prompt_cache.prediction.outputs.base import Writer
from img2prompt_cache.prediction.outputs.kaggle import CsvWriter
from img2prompt_cache.prediction.outputs.sidecars import Sidecars
from img2prompt_cache.prediction.outside import OutsideColumns, of_images
from img2prompt_cache.prediction.own_prompts import OwnPrompts, open_own_prompts
from img2prompt_cache.prediction.predictions import Predictions
from img2prompt_cache.prediction.sample import Sample, read_sample, require_whole
from img2prompt_cache.prediction.stream import load_backbones, predict_cached, predict_images
from img2prompt_cache.prediction.weights import Weights, weights_of
from img2prompt_cache.progress import Callback, ignore, listening, note, task, warn
from img2prompt_cache.sources import list_images
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.sources.base import Listing, Source

Images: TypeAlias = (
    "str | Path | Cache | NDArray[Any] | Sequence[str | Path] | Sequence[Sequence[float]] | None"
)
"""What `predict` takes: images named by paths, a cache, features of shape (n, p), or None."""

NEAREST = 3
"""Prompts that are found for each image unless a number is asked for."""


def predict(
    fitted: Fitted,
    images: Images = None,
    *,
    weights: Weights = None,
    replace: Mapping[str, str] | None = None,
    progress: bool | Callback = False,
    **options: Any,
) -> Predictions:
    """Predict, and give everything at once; the options are those of `weights_of` and `predict_batches`.

    Raises
    ------
    UsageError, Img2PromptError
        As `predict_batches`; also if no image could be used.
    """
    with listening(progress) as tell, weights_of(fitted, weights, replace):
        return Predictions.concatenate(
            predict_batches(fitted, images, tell=tell, **options), fitted.target.width
        )


def predict_batches(
    fitted: Fitted,
    images: Images = None,
    *,
    top_k: int | None = None,
    bank: str | Path | None = None,
    hub_correction: bool = True,
    compose: bool = False,
    cache: str | Path | Cache | None = None,
    out: str | Path | None = None,
    sidecar: str | None = None,
    overwrite: bool = False,
    min_expected: float | None = None,
    like: str | Path | None = None,
    allow_missing: bool = False,
    device: str = "auto",
    tell: Callback = ignore,
) -> Generator[Predictions, None, None]:
    """Predict batch by batch, so that memory does not grow with the number of images.

    Everything that can be wrong before the first image is found out at the call, the rest while iterating.

    Parameters
    ----------
    fitted : Fitted
        A run.
    images, top_k, bank, hub_correction, compose, cache, out, sidecar, overwrite, min_expected, device
    like, allow_missing
        See `predict`.
    tell : callable
        Told notes, and the progress of the task ``"predict"``.

    Yields
    ------
    Predictions
        Of a batch of images, with their nearest prompts where these are wanted.

    Raises
    ------
    UsageError
        If something named is not there, or features have another width than the head was fitted on.
    Img2PromptError
        If a backbone is not the one the head was fitted with, none of the images could be used, or a
        submission was completed with the mean.
    """
    rows = _features(images)
    if like is not None and (out is None or writer_for(out) is not CsvWriter or rows is not None):
        raise UsageError(
            "`like` goes with images, and with a submission: name a .csv file with `out`", parameter="like"
        )
    needed = sidecar is not None or (out is not None and writer_for(out).needs_prompts)
    if top_k is None:
        top_k = NEAREST if bank or not (out is not None or rows is not None) else int(needed and not compose)
    if top_k < 0:
        raise UsageError(f"`top_k` must be at least 0, not {top_k}", parameter="top_k")
    if needed and not (top_k or compose):
        raise UsageError(
            "captions are prompts: `top_k` must be 1 or more, or give `compose=True`", parameter="top_k"
        )
    if min_expected is not None and not -1 <= min_expected <= 1:
        raise UsageError(
            f"`min_expected` is a cosine, from -1 to 1, not {min_expected}", parameter="min_expected"
        )
    home = _home(fitted, cache)
    inputs = [*_paths(images if rows is None else None), *(each for each in (bank, like) if each)]
    writer = (
        open_writer(out, fitted.target.width, overwrite=overwrite, inputs=inputs) if out is not None else None
    )
    sample = None if like is None else read_sample(Path(like), fitted.target.width)
    sidecars = None if sidecar is None else Sidecars(sidecar, overwrite=overwrite)
    estimator = fitted.estimator.use_device(device)
    _require_told(fitted, min_expected, tell)
    batches = (
        iter([_from_features(fitted, estimator, rows)])
        if rows is not None
        else _find_batches(fitted, estimator, images, home, device, tell, writer, sidecars, sample)
    )
    if sidecars is not None and not sidecars.places:
        raise UsageError("`sidecar` writes beside image files; name some as `images`", parameter="sidecar")
    known = load_prompts(fitted, home, bank, device, tell, compose=compose) if top_k or compose else None
    if known is not None and top_k and hub_correction:
        known = replace(known, mean_prediction=mean_for_hubs(fitted, tell))
    return _run(
        batches,
        known,
        top_k,
        writer,
        sidecars,
        min_expected,
        tell,
        allow_missing=allow_missing,
        fitted_on_pairs=fitted.own_bank is None,
    )


def _require_told(fitted: Fitted, min_expected: float | None, tell: Callback) -> None:
    """Say where a run tells no expected cosine, and refuse to compare with one then."""
    if fitted.expectation is not None:
        return
    if min_expected is not None:
        raise UsageError(f"`min_expected`: {fitted.without_expectation}", parameter="min_expected")
    warn(tell, fitted.without_expectation)


def _home(fitted: Fitted, cache: str | Path | Cache | None) -> Cache | Path | None:
    if cache is None:
        return fitted.home
    return cache if isinstance(cache, Cache) else Path(cache)


def _features(images: Images) -> NDArray[Any] | None:
    """Give the features where these were given in place of images."""
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


def _from_features(fitted: Fitted, estimator: Head, rows: NDArray[Any]) -> Predictions:
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


def _find_batches(
    fitted: Fitted,
    estimator: Head,
    images: Images,
    home: Cache | Path | None,
    device: str,
    tell: Callback,
    writer: Writer | None,
    sidecars: Sidecars | None,
    sample: Sample | None,
) -> Iterator[Predictions]:
    """Find out what to predict for, and check that it can be done; then go through it batch by batch."""
    paths = _paths(images)
    if images is None:
        if home is None:
            gone = f"the cache of the run is gone ({fitted.cache})" if fitted.cache else "there is no cache"
            raise UsageError(f"{gone}; name images, or a cache with `cache`", parameter="cache")
        opened = home if isinstance(home, Cache) else Cache(home)
        return iter([_from_cache(fitted, estimator, opened, writer, sample, tell, with_prompt=False)])
    if isinstance(images, Cache):
        return iter([_from_cache(fitted, estimator, images, writer, sample, tell)])
    if len(paths) == 1 and (paths[0] / MANIFEST).is_file():
        return iter([_from_cache(fitted, estimator, Cache(paths[0]), writer, sample, tell)])
    source, listing = list_images(paths)
    for line in listing.summary.notes:
        warn(tell, line)
    if sample is not None:
        listing = replace(listing, table=sample.order(listing.table, tell))
    if writer:
        writer.expect(each.as_py() for each in listing.table["imgId"])
        _complete(writer, listing.table["imgId"], fitted, sample)
    if sidecars is not None:
        sidecars.expect(source, listing)
    outside = OutsideColumns(fitted.features, estimator)
    if outside:
        outside.require(listing.table["imgId"].to_pylist())
    backbones = load_backbones(of_images(fitted.features), device)
    return _streamed(
        fitted, estimator, backbones, source, listing, open_own_prompts(home, tell), outside, tell
    )


def _from_cache(
    fitted: Fitted,
    estimator: Head,
    cache: Cache,
    writer: Writer | None,
    sample: Sample | None,
    tell: Callback,
    with_prompt: bool | None = None,
) -> Predictions:
    found = predict_cached(
        fitted.features, estimator, cache, with_prompt=with_prompt, expectation=fitted.expectation
    )
    found = found if sample is None else sample.select(found, tell)
    _complete(writer, pa.array([*found.ids, *found.failed], pa.string()), fitted, sample)
    return found


def _complete(
    writer: Writer | None, ids: pa.Array | pa.ChunkedArray, fitted: Fitted, sample: Sample | None
) -> None:
    """Let a submission have a row for every image, and for every one of the sample if there is one."""
    if isinstance(writer, CsvWriter):
        wanted = ids if sample is None else sample.ids
        writer.complete(
            (each.as_py() for each in wanted),
            lambda: unit(fitted.mean_prediction[None])[0],
            verbatim=sample is not None,
        )


def _paths(images: Any) -> list[Path]:
    if images is None or isinstance(images, Cache):
        return []
    return [Path(images)] if isinstance(images, str | os.PathLike) else [Path(each) for each in images]


def _streamed(
    fitted: Fitted,
    estimator: Head,
    backbones: dict[str, Any],
    source: Source,
    listing: Listing,
    own_prompts: OwnPrompts | None,
    outside: OutsideColumns,
    tell: Callback,
) -> Iterator[Predictions]:
    with task(tell, "predict", len(listing.table)) as advance:
        for batch in predict_images(
            estimator,
            backbones,
            source,
            listing.table,
            expectation=fitted.expectation,
            own_prompts=own_prompts,
            outside=outside,
        ):
            advance(len(batch.ids) + len(batch.failed))
            yield batch


def _run(
    batches: Iterator[Predictions],
    known: KnownPrompts | None,
    top_k: int,
    writer: Writer | None,
    sidecars: Sidecars | None,
    min_expected: float | None,
    tell: Callback,
    *,
    allow_missing: bool,
    fitted_on_pairs: bool,
) -> Generator[Predictions, None, None]:
    """Add flags and prompts to each batch, write it, and hand it on."""
    used = failed = flagged = own = 0
    with ExitStack() as stack:
        if writer:
            stack.enter_context(writer)
        for batch in batches:
            used += len(batch.ids)
            failed += len(batch.failed)
            own += sum(prompt is not None for prompt in batch.own_prompts or ())
            if min_expected is not None and batch.expected is not None:
                below = batch.expected < min_expected
                batch = replace(batch, flagged=below)
                flagged += int(below.sum())
            if known is not None and batch.ids:
                batch = known.show(batch, top_k)
            if writer and batch.ids:
                writer.write(batch.ids, batch.vectors, batch.nearest, batch.columns)
            if sidecars and batch.ids:
                sidecars.write(batch.ids, batch.nearest, batch.columns)
            yield batch
        if failed and not used:
            raise Img2PromptError(
                "the one image could not be used"
                if failed == 1
                else f"none of the {failed} images could be used"
            )
    if sidecars:
        note(tell, sidecars.summary())
    if own and writer and fitted_on_pairs:
        warn(
            tell,
            f"{own} of {counted(used, 'image', 'images')} {'is' if own == 1 else 'are'} in the cache with "
            "a prompt of their own, so "
            "the head may have been fitted on them: their predictions are no test of it",
        )
    if min_expected is not None:
        unmarked = "" if writer is None or writer.keeps_columns else ", which the output has no place to show"
        note(
            tell,
            f"expected to have a cosine below {min_expected:g}: {flagged} of "
            f"{counted(used, 'prediction', 'predictions')}{unmarked}; "
            "none is left out",
        )
    if writer and writer.guarded:
        note(
            tell,
            "ids that begin like a formula, and have an apostrophe before them in the CSV file: "
            f"{writer.guarded}; the .parquet and .jsonl outputs keep them",
        )
    if isinstance(writer, CsvWriter):
        require_whole(writer.path, writer.filled, tell, allow_missing=allow_missing)
