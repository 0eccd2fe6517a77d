"""The verb `tune`: search the settings of a head, and fit the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting.config import HOLDOUT, FitConfig
from img2prompt_cache.fitting.options import named_test_set, require_one_test, require_valid
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.progress import Callback, listening
from img2prompt_cache.runs.folder import reserve
from img2prompt_cache.runs.run import Run
from img2prompt_cache.runs.tracking.entry import run_entry
from img2prompt_cache.runs.tracking.track import Tracker, require_tracker
from img2prompt_cache.tuning.finished import FinishedStudy
from img2prompt_cache.tuning.search import TuneConfig, default_file, search
from img2prompt_cache.tuning.spaces import find_space

TRIALS = 30


@overload
def tune(
    cache: str | Path | Cache,
    head: str = ...,
    *,
    trials: int = ...,
    space: str | Path | Mapping[str, Any] | None = ...,
    sampler: str = ...,
    prune: bool = ...,
    study: str | Path | None = ...,
    features: str | Sequence[str] = ...,
    encoder: str | None = ...,
    split: str = ...,
    test: str | None = ...,
    holdout: float | None = ...,
    group_threshold: float | None = ...,
    seed: int = ...,
    fit: Literal[True] = ...,
    run: str | Path | None = ...,
    overwrite: bool = ...,
    device: str = ...,
    track: str | None = ...,
    progress: bool | Callback = ...,
) -> Run: ...


@overload
def tune(
    cache: str | Path | Cache,
    head: str = ...,
    *,
    trials: int = ...,
    space: str | Path | Mapping[str, Any] | None = ...,
    sampler: str = ...,
    prune: bool = ...,
    study: str | Path | None = ...,
    features: str | Sequence[str] = ...,
    encoder: str | None = ...,
    split: str = ...,
    test: str | None = ...,
    holdout: float | None = ...,
    group_threshold: float | None = ...,
    seed: int = ...,
    fit: Literal[False],
    run: str | Path | None = ...,
    overwrite: bool = ...,
    device: str = ...,
    track: str | None = ...,
    progress: bool | Callback = ...,
) -> FinishedStudy: ...


def tune(
    cache: str | Path | Cache,
    head: str = "mlp",
    *,
    trials: int = TRIALS,
    space: str | Path | Mapping[str, Any] | None = None,
    sampler: str = "random",
    prune: bool = True,
    study: str | Path | None = None,
    features: str | Sequence[str] = (),
    encoder: str | None = None,
    split: str = "group",
    test: str | None = None,
    holdout: float | None = None,
    group_threshold: float | None = None,
    seed: int = 0,
    fit: bool = True,
    run: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    track: str | None = None,
    progress: bool | Callback = False,
) -> Run | FinishedStudy:
    """Search the settings of a head, and fit the best as an ordinary run.

    A trial is scored on grouped inner folds of the training side, or on one inner hold-out where there are
    5,000 rows or more. The rows that score the run are never used by the search. The same call continues a
    search that was interrupted.

    Parameters
    ----------
    cache : path or Cache
        A folder that `extract` made.
    head : str
        Name of the head, such as ``"mlp"``.
    trials : int
        How many there are to be in all, those of an earlier call with the same study included.
    space : str, path or mapping, optional
        What to search: ``"seed"``, the random search of the student project; a JSON file; or a mapping such
        as ``{"lr": {"log": [1e-5, 1e-2]}, "dropout": {"uniform": [0, 0.5]}, "patience": {"int": [2, 20]},
        "hidden": [[512], [512, 512]]}``. The head's own space if None.
    sampler : str
        ``"random"``; or ``"tpe"``, which tries more settings near those with good scores.
    prune : bool
        Stop a trial early if its score on the way is below the median of the trials before it.
    study : path, optional
        The SQLite file that holds the trials. If None: in the cache's `studies`, named after the head, the
        backbones and the space. `load_study` reads it.
    features, encoder, split, test, group_threshold, seed, run, overwrite, device
        As for `img2prompt_cache.fit`. The search never sees a row of the test set, nor one that is
        near-identical to it.
    holdout : float, optional
        Share of the rows that is held out from the search; 0.2 if None.
    fit : bool
        Fit the best settings as a run.
    track : str, optional
        Also log the run, and each trial of this call when it ends, to ``"tensorboard"``, ``"wandb"`` or
        ``"mlflow"``.
    progress : bool or callable
        False: silent. True: notes and progress bars. A callable gets every `Event`: ``"trial"`` with a
        `FinishedTrial`, steps of the tasks ``"trials"`` and ``"fit"``, and notes.

    Returns
    -------
    Run or FinishedStudy
        The run with the settings of the best trial; or with ``fit=False`` the study.

    Raises
    ------
    UsageError
        If a name is unknown, the rows are too few, or the study is of something else.
    Img2PromptError
        If the cache or the study is damaged, no trial has a score, or another process is searching in the
        same study.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> from img2prompt_cache.tuning import load_study
    >>> run = ipc.tune("cache/default", head="knn", trials=5)
    >>> study = load_study("knn-one+other", "cache/default")
    >>> len(study.trials)
    5
    >>> study.best.settings["k"] == run.settings["k"]
    True
    """
    if trials < 1:
        raise UsageError(f"`trials` must be at least 1, not {trials}", parameter="trials")
    values = {"test": test, "holdout": holdout, "split": None if split == "group" else split}
    require_one_test([name for name, value in values.items() if value is not None])
    require_valid(seed, device)
    require_tracker(track)
    opened = open_cache(cache)
    config = FitConfig(
        head=head,
        features=(features,) if isinstance(features, str) else tuple(features),
        encoder=encoder,
        split=split if test is None else named_test_set(test),
        holdout=HOLDOUT if holdout is None else holdout,
        group_threshold=group_threshold,
        seed=seed,
        device=device,
    )
    wanted = TuneConfig(config, find_space(head, space), trials, sampler, prune)
    file = default_file(opened, config, space) if study is None else Path(study)
    if run is not None:
        with reserve(Path(run), overwrite=overwrite):
            pass  # a folder that is taken is found out before the search, not after it
    with listening(progress) as tell:
        tracker = Tracker(track, opened.folder, tell)
        found = search(opened, wanted, file, tell, tracker)
        if not fit:
            return found
        chosen = replace(config, settings=found.best.settings)
        made = fit_head(opened, chosen, None if run is None else Path(run), overwrite=overwrite, tell=tell)
        tracker.write(lambda: run_entry(made))
        return made
