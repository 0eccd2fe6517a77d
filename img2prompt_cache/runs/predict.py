"""The verb `predict`: a run that is named in any way, on images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.manifest_file import NAME as MANIFEST
from img2prompt_cache.cache.opening import folder_of, open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.weights.places import Places, looking_in
from img2prompt_cache.prediction.inputs import Images, given_cache
from img2prompt_cache.prediction.predict import predict as predict_all
from img2prompt_cache.prediction.predictions import Predictions
from img2prompt_cache.prediction.weights import Weights
from img2prompt_cache.prediction.zero_shot import (
    ZeroShotModel,
    make_zero_shot,
    refuse_what_takes_pairs,
)
from img2prompt_cache.progress import Callback, ignore, listening, warn
from img2prompt_cache.runs.names import NoRunError, open_run
from img2prompt_cache.runs.run import AnyRun, Run


def predict(
    run: AnyRun | None = None,
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
    weights: Weights = None,
    replace: Mapping[str, str] | None = None,
    zero_shot: bool = False,
    device: str = "auto",
    runtime: str = "auto",
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    progress: bool | Callback = False,
) -> Predictions:
    """Predict prompt embeddings for images, and find the nearest prompts.

    Parameters
    ----------
    run : Run, str or pathlib.Path, optional
        A run, its folder, or its name in the cache's `runs`. The newest run of the cache if None.
    images : path, sequence of paths, Cache, array of float or None
        Image files, folders or any source; a cache, for its rows; features of shape (n, p), joined as
        the run was fitted on them; or None for the rows of the cache that have no prompt.
    top_k : int, optional
        Nearest prompts to find for each image. If None: 3, but none for an array, and none where
        predictions are written with `out` and no `bank` is named; 1 for captions that are not composed.
    bank : path, optional
        Prompts to choose from: a text file with one a line, or a table. The cache's prompts if None.
    hub_correction : bool
        Rank the nearest prompts with a correction for hubs: prompts that are near to every prediction. It
        takes the mean of the run's predictions for held-out rows.
    compose : bool
        Also compose a prompt for each image, of phrases in the cache's prompts and those of `bank`: see
        `Predictions.composed`. It takes the text encoder that made the targets.
    cache : path or Cache, optional
        The cache. If None, the run's own; ``cache/default`` to find a run by its name.
    out : path, optional
        Also write the predictions to this file: ``.npy``, ``.csv`` (Kaggle), ``.parquet`` or ``.jsonl``;
        or to a folder, ``captions/``, a text file with the composed or nearest prompt of each image; or
        that prompt for each image as a table to read, ``.prompts.csv``.
    sidecar : str, optional
        Also write that prompt beside each image: ``"txt"``, ``"caption"`` or ``"json"``. What is there
        already stays.
    overwrite : bool
        Replace the file, and sidecars.
    min_expected : float, optional
        Flag predictions whose expected cosine is lower; see `Predictions.flagged`. None is left out.
    like : path, optional
        A sample submission, whose images `out`, a ``.csv`` file, is to have, in that order. An imgId may be
        that of an image, or the end of one: `0001` for ``images/0001.png``.
    allow_missing : bool
        Accept a submission in which images that cannot be used, or are not there, have the run's mean
        prediction for held-out rows. Without it that is an error; the file is written all the same.
    weights : path or sequence of paths, optional
        Folders to search, with all below them, for the weights that the run was fitted with, told by their
        fingerprints, if they lie elsewhere now. `IMG2PROMPT_WEIGHTS` names more.
    replace : mapping of str to str, optional
        Beginnings of paths in the run's specs, and what stands in their place now.
    zero_shot : bool
        Predict without a run, from what the backbones say of an image in words, and a bank of prompts: that
        of `bank`, or the starter bank. Takes no pairs, and is much worse than a run fitted on some.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    runtime : {"auto", "torch", "openvino"}
        What computes the backbones on a processor. ``"auto"`` is what the run's features were made with, and
        torch where that is OpenVINO and cannot be used here.
    engine : {"local", "ray"}
        What encodes and predicts images: this machine, or a Ray cluster whose machines all see the images and
        the weights under the same paths.
    workers : int, optional
        Slices of 512 images that the cluster works on at once; one for each GPU if None, or one for each
        machine where there is none.
    ray_address : str, optional
        The Ray cluster: ``"auto"``, ``"host:port"`` or ``"ray://host:port"``. If None, the session that is
        open, or else one of this machine.
    progress : bool or callable
        See `img2prompt_cache.progress.listening`.

    Returns
    -------
    Predictions
        With `ids`, `vectors` (n, 384), `expected`, `prompts` and `scores`. Bad images are left out, and
        listed in `Predictions.failed`.

    Raises
    ------
    UsageError
        If something named is not there, or the array has another width than the run.
    Img2PromptError
        If the run is damaged, a backbone is not the one it was fitted with, every image is bad,
        or a submission has the mean in place of predictions.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> seen = ipc.predict(run, ["a.png", "pictures/"], top_k=3)  # doctest: +SKIP
    >>> seen.vectors.shape, seen.prompts[0]  # doctest: +SKIP
    """
    with listening(progress) as tell:
        fitted = open_fitted(
            run,
            images,
            zero_shot=zero_shot,
            bank=bank,
            compose=compose,
            cache=cache,
            min_expected=min_expected,
            weights=weights,
            replace=replace,
            device=device,
            tell=tell,
        )
        return predict_all(
            fitted,
            images,
            top_k=top_k,
            bank=bank,
            hub_correction=hub_correction,
            compose=compose,
            cache=cache,
            out=out,
            sidecar=sidecar,
            overwrite=overwrite,
            min_expected=min_expected,
            like=like,
            allow_missing=allow_missing,
            weights=weights,
            replace=replace,
            device=device,
            runtime=runtime,
            engine=engine,
            workers=workers,
            ray_address=ray_address,
            progress=tell,
        )


def open_fitted(
    run: AnyRun | None,
    images: Images,
    *,
    zero_shot: bool | None = False,
    bank: str | Path | None = None,
    compose: bool = False,
    cache: str | Path | Cache | None = None,
    min_expected: float | None = None,
    weights: Weights = None,
    replace: Mapping[str, str] | None = None,
    device: str = "auto",
    tell: Callback = ignore,
) -> Run | ZeroShotModel:
    """Open what predicts: a run, or what needs none.

    Parameters
    ----------
    run, images, bank, compose, cache, min_expected, device
        See `predict`.
    weights, replace
        For the models of zero-shot prediction; those of a run are loaded later.
    zero_shot : bool or None
        None for zero-shot prediction where no run is named and the cache has none.
    tell : callable
        Told what zero-shot predictions are made of.

    Raises
    ------
    UsageError
        If there is no run, both are asked for, or something else that takes a run.
    Img2PromptError
        If the run is damaged, or a model cannot be loaded.
    """
    missing = None
    if zero_shot and run is not None:
        raise UsageError("`zero_shot=True` takes no `run`", parameter="zero_shot")
    if not zero_shot:
        try:
            return open_run(run, cache or DEFAULT_CACHE)
        except NoRunError as error:
            if zero_shot is False or (images is None and not _is_cache(cache or DEFAULT_CACHE)):
                raise
            missing = error
    try:
        refuse_what_takes_pairs(compose=compose, min_expected=min_expected)
    except UsageError as error:
        if missing is None:
            raise
        raise UsageError(f"{error}; {missing}", parameter=error.parameter) from None
    try:
        with looking_in(Places.of(weights, replace)):
            found = make_zero_shot(_cache_for(images, cache), bank=bank, device=device, tell=tell)
    except Img2PromptError as error:
        if missing is None:
            raise
        raise UsageError(
            f"{missing}; nor is there a way to predict without one: {error}", parameter="run"
        ) from None
    if missing is not None:
        warn(tell, f"{missing}; predicted without a run")
    return found


def _is_cache(cache: str | Path | Cache) -> bool:
    return (folder_of(cache) / MANIFEST).is_file()


def _cache_for(images: Images, cache: str | Path | Cache | None) -> Cache | None:
    """Give the cache whose columns zero-shot prediction takes; None where the preset encodes the images."""
    if cache is not None and not isinstance(images, Cache):
        return open_cache(cache)
    return Cache(Path(DEFAULT_CACHE)) if images is None else given_cache(images)
