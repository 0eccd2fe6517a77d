"""The verb `predict`: a run that is named in any way, on images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.prediction.predict import Images
from img2prompt_cache.prediction.predictions import Predictions
from img2prompt_cache.prediction.weights import Weights
from img2prompt_cache.progress import Callback
from img2prompt_cache.runs.names import open_run
from img2prompt_cache.runs.run import AnyRun


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
    overwrite: bool = False,
    min_expected: float | None = None,
    weights: Weights = None,
    replace: Mapping[str, str] | None = None,
    device: str = "auto",
    progress: bool | Callback = False,
) -> Predictions:
    """Predict prompt embeddings for images, and find the nearest prompts.

    Parameters
    ----------
    run : Run, str or pathlib.Path, optional
        A run, its folder, or its name in the cache's `runs`. The newest run of the cache if None.
    images : path, sequence of paths, Cache, array of float or None
        Image files, folders or any source; a cache, for all of its rows; features of shape (n, p), joined as
        the run was fitted on them; or None for the rows of the cache that have no prompt.
    top_k : int, optional
        Nearest prompts to find for each image. If None: 3, but none for an array, and none where predictions
        are written with `out` and no `bank` is named.
    bank : str or pathlib.Path, optional
        Prompts to choose from: a text file with one a line, or a table. The cache's prompts if None.
    hub_correction : bool
        Rank the nearest prompts with a correction for hubs: prompts that are near to every prediction. It
        takes the mean of the run's predictions for held-out rows.
    compose : bool
        Also compose a prompt for each image, of phrases in the cache's prompts and those of `bank`: see
        `Predictions.composed`. It takes the text encoder that made the targets.
    cache : str, pathlib.Path or Cache, optional
        The cache. If None, the run's own; ``cache/default`` to find a run by its name.
    out : str or pathlib.Path, optional
        Also write the predictions to this file: ``.npy``, ``.csv`` (Kaggle), ``.parquet`` or ``.jsonl``.
    overwrite : bool
        Replace the file.
    min_expected : float, optional
        Flag predictions whose expected cosine is lower; see `Predictions.flagged`. None is left out.
    weights : path or sequence of paths, optional
        Folders to search, with all below them, for the weights that the run was fitted with, told by their
        fingerprints, if they lie elsewhere now. `IMG2PROMPT_WEIGHTS` names more.
    replace : mapping of str to str, optional
        Beginnings of paths in the run's specs, and what stands in their place now.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    progress : bool or callable
        True shows progress bars; a callable is called with every `Event`.

    Returns
    -------
    Predictions
        With `ids`, `vectors` (n, 384), `expected`, `prompts` and `scores`. Bad images are left out; see
        `failed`.

    Raises
    ------
    UsageError
        If something named is not there, or the array has another width than the run.
    Img2PromptError
        If the run is damaged, a backbone is not the one it was fitted with, or every image is bad.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> seen = ipc.predict(run, ["a.png", "pictures/"], top_k=3)  # doctest: +SKIP
    >>> seen.vectors.shape, seen.prompts[0]  # doctest: +SKIP
    """
    return open_run(run, cache or DEFAULT_CACHE).predict(
        images,
        top_k=top_k,
        bank=bank,
        hub_correction=hub_correction,
        compose=compose,
        cache=cache,
        out=out,
        overwrite=overwrite,
        min_expected=min_expected,
        weights=weights,
        replace=replace,
        device=device,
        progress=progress,
    )
