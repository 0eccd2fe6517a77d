"""Prediction: a fitted head on images, on rows of a cache or on features, with the nearest prompts."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.models.runtimes import RUNTIMES
from img2prompt_cache.numerics.workers import computing_on
from img2prompt_cache.prediction.batches import find_batches, predict_features
from img2prompt_cache.prediction.fitted import Fitted
from img2prompt_cache.prediction.inputs import Images, given_features, given_paths
from img2prompt_cache.prediction.known_prompts import KnownPrompts, load_prompts, mean_for_hubs
from img2prompt_cache.prediction.predictions import Predictions
from img2prompt_cache.prediction.result_files import ResultFiles, is_submission, need_prompts
from img2prompt_cache.prediction.tally import Tally
from img2prompt_cache.prediction.weights import Weights, weights_of
from img2prompt_cache.progress import Callback, ignore, listening, note, warn

NEAREST = 3
"""Prompts that are found for each image unless a number is asked for."""


def predict(
    fitted: Fitted,
    images: Images = None,
    *,
    weights: Weights = None,
    replace: Mapping[str, str] | None = None,
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    progress: bool | Callback = False,
    **options: Any,
) -> Predictions:
    """Predict, and give everything at once.

    The options are those of `weights_of`, `computing_on` and `predict_batches`.

    Raises
    ------
    UsageError, Img2PromptError
        As `predict_batches`; also if no image could be used.
    """
    with (
        listening(progress) as tell,
        weights_of(fitted, weights, replace),
        computing_on(engine, workers, ray_address, gpus=options.get("device") != "cpu"),
    ):
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
    runtime: str = "auto",
    tell: Callback = ignore,
) -> Generator[Predictions, None, None]:
    """Predict batch by batch, so that memory does not grow with the number of images.

    Everything that can be wrong before the first image is found out at the call, the rest while iterating.

    Parameters
    ----------
    fitted : Fitted
        A run.
    images, top_k, bank, hub_correction, compose, cache, out, sidecar, overwrite, min_expected, device
    runtime, like, allow_missing
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
    rows = given_features(images)
    if like is not None and (not is_submission(out) or rows is not None):
        raise UsageError(
            "`like` goes with images, and with a submission: name a .csv file with `out`", parameter="like"
        )
    needed = need_prompts(out, sidecar)
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
    if runtime not in RUNTIMES:
        raise unknown("`runtime`", runtime, RUNTIMES, parameter="runtime")
    home = fitted.home if cache is None else cache if isinstance(cache, Cache) else Path(cache)
    inputs = [*given_paths(images if rows is None else None), *(each for each in (bank, like) if each)]
    files = ResultFiles.prepare(out, sidecar, like, fitted.target.width, overwrite=overwrite, inputs=inputs)
    estimator = fitted.estimator.use_device(device)
    _require_told(fitted, min_expected, tell)
    batches = (
        iter([predict_features(fitted, estimator, rows)])
        if rows is not None
        else find_batches(fitted, estimator, images, home, files, device, runtime, tell)
    )
    files.require_places()
    known = load_prompts(fitted, home, bank, device, tell, compose=compose) if top_k or compose else None
    if known is not None and top_k and hub_correction:
        known = replace(known, mean_prediction=mean_for_hubs(fitted, tell))
    return _run(
        batches,
        known,
        top_k,
        files,
        min_expected,
        tell,
        allow_missing=allow_missing,
        fitted_on_pairs=fitted.own_bank is None,
    )


def _require_told(fitted: Fitted, min_expected: float | None, tell: Callback) -> None:
    """Say where a run tells no expected cosine, or one that tells little; refuse to compare with none."""
    if fitted.expectation is not None:
        if fitted.doubts:
            warn(tell, fitted.doubts)
        return
    if min_expected is not None:
        raise UsageError(f"`min_expected`: {fitted.without_expectation}", parameter="min_expected")
    warn(tell, fitted.without_expectation)


def _run(
    batches: Iterator[Predictions],
    known: KnownPrompts | None,
    top_k: int,
    files: ResultFiles,
    min_expected: float | None,
    tell: Callback,
    *,
    allow_missing: bool,
    fitted_on_pairs: bool,
) -> Generator[Predictions, None, None]:
    """Add flags and prompts to each batch, write it, and hand it on."""
    tally = Tally()
    with files.writer or nullcontext():
        for batch in batches:
            if min_expected is not None and batch.expected is not None:
                batch = replace(batch, flagged=batch.expected < min_expected)
            tally.add(batch)
            if known is not None and batch.ids:
                batch = known.show(batch, top_k)
            files.write(batch)
            yield batch
        tally.require_some()
    if files.sidecars:
        note(tell, files.sidecars.summary())
    if files.writer and fitted_on_pairs:
        tally.warn_of_own(tell)
    if min_expected is not None:
        tally.note_flagged(min_expected, tell, shown=not files.hides_columns)
    files.check_written(tell, allow_missing=allow_missing)
