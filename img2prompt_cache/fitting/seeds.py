"""Fits that differ in nothing but their seeds: those of the split, and those of the head."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from img2prompt_cache.cache.opening import open_cache
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import choose_features
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.columns import choose_columns
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.distil import cheapest
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.fitting.options import is_made_of_runs
from img2prompt_cache.heads import make_head
from img2prompt_cache.progress import Callback, listening, note
from img2prompt_cache.runs.names import FOLDER, joined_name
from img2prompt_cache.runs.run import Run
from img2prompt_cache.runs.run_file import replace_record
from img2prompt_cache.runs.seeds import read_seeds

Seeds: TypeAlias = str | int | Iterable[int]
"""Seeds as ``"0-4"``, ``"0,2,7"``, one number or several."""


def fit_seeds(
    cache: str | Path | Cache,
    head: str = "best",
    *,
    seeds: Seeds | None = None,
    split_seeds: Seeds | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    features: str | Sequence[str] = (),
    soften: str | Path | None = None,
    run: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | Callback = False,
    **parameters: Any,
) -> list[Run]:
    """Fit a head several times with other seeds, to see how much its score depends on them.

    `compare` shows the runs as one entry: the mean score, and its standard deviation over seeds of the head
    and over seeds of the split, each for itself.

    Parameters
    ----------
    cache, head, settings, features, soften, overwrite, progress
        As for `fit`.
    seeds : str, int or iterable of int, optional
        Seeds of the head: ``"0-4"``. All of them are fitted on each split. A head without randomness is
        fitted once on each split instead, and a note says so.
    split_seeds : str, int or iterable of int, optional
        Seeds of the split: each holds out other rows, or divides them into other folds.
    seed : int
        Of the split if there are no `split_seeds`, and of the head if there are no `seeds`.
    run : path, optional
        Name of the runs, to which each adds its seeds: ``NAME-seed3``, ``NAME-split1-seed3``.
    **parameters
        More parameters of `fit`.

    Returns
    -------
    list of Run
        By seed of the split, then by seed of the head.

    Raises
    ------
    UsageError, Img2PromptError
        As `fit`; also if there are neither `seeds` nor `split_seeds`, or a seed is no whole number.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> runs = ipc.fit_seeds("cache/default", "mlp", seeds="0-4", folds=5)  # doctest: +SKIP
    >>> ipc.compare("cache/default").to_pandas()[["cosine", "sd_head_seeds"]]  # doctest: +SKIP
    """
    unknown_names = {*parameters} - {*inspect.signature(fit).parameters}
    if unknown_names:
        raise TypeError(f"fit has no parameter {', '.join(sorted(unknown_names))}")
    if seeds is None and split_seeds is None:
        raise UsageError("name seeds of the head with `seeds`, or of the split with `split_seeds`")
    if parameters.get("oof") is not None:
        raise UsageError("`oof` takes the predictions of one run; leave out the seeds", parameter="oof")
    of_head = (seed,) if seeds is None else read_seeds(seeds, "seeds")
    of_split = (seed,) if split_seeds is None else read_seeds(split_seeds, "split_seeds")
    own = dict(settings or {})
    if "seed" in own:
        raise UsageError("`settings`: seed is given twice", parameter="settings")
    opened = open_cache(cache)
    made_of_runs = is_made_of_runs(head, own)
    if made_of_runs and (split_seeds is not None or head == "blend"):
        raise UsageError(
            f'`{"seeds" if split_seeds is None else "split_seeds"}` does not go with `head="{head}"`: it '
            "follows from the runs named",
            parameter="seeds" if split_seeds is None else "split_seeds",
        )
    with listening(progress) as tell:
        if len(of_head) > 1 and not made_of_runs and not _is_random(head, own, soften):
            note(
                tell,
                f"{head} has no randomness with these settings: other seeds of the head would give the same, "
                "so it is fitted once for each split",
            )
            of_head = of_head[:1]
        pairs = [*itertools.product(of_split, of_head)]
        base = _base(opened, head, own, features) if run is None else Path(run)
        folders = [base.with_name(base.name + _suffix(each, of_split, of_head)) for each in pairs]
        if not overwrite:
            _require_free(folders)
        series = f"{base.name}@{datetime.now(UTC).isoformat(timespec='milliseconds')}"
        found = []
        for (split_seed, head_seed), folder in zip(pairs, folders, strict=True):
            more = own if made_of_runs or not _has_seed(head) else {**own, "seed": head_seed}
            made = fit(
                opened,
                head,
                settings=more,
                features=features,
                soften=soften,
                run=folder,
                overwrite=overwrite,
                progress=tell,
                seed=head_seed if made_of_runs else split_seed,
                **parameters,
            )
            found.append(made if len(pairs) == 1 else _marked(made, series))
    return found


def _is_random(head: str, settings: Mapping[str, Any], soften: str | Path | None) -> bool:
    return FitConfig(head=head, settings=settings, soften=soften).make_head().random


def _has_seed(head: str) -> bool:
    return "seed" in make_head(head).get_params()


def _suffix(pair: tuple[int, int], of_split: Sequence[int], of_head: Sequence[int]) -> str:
    """Name what tells a run apart: the seeds of which there are several."""
    split_seed, head_seed = pair
    split = f"-split{split_seed}" if len(of_split) > 1 else ""
    return split + (f"-seed{head_seed}" if len(of_head) > 1 else "")


def _base(cache: Cache, head: str, settings: Mapping[str, Any], features: str | Sequence[str]) -> Path:
    """Choose a readable name that no run of the cache begins with, such as ``mlp-resnet50-01``."""
    specs = (features,) if isinstance(features, str) else tuple(features)
    if is_made_of_runs(head, settings):
        columns = choose_features(cache, specs or cheapest(cache))
    else:
        columns, _ = choose_columns(cache, make_head(head, **settings), specs)
    name = f"{head}-{joined_name([column.spec for column in columns])}"[:80]
    runs = cache.folder / FOLDER
    taken = [path.name for path in runs.iterdir()] if runs.is_dir() else []
    numbers = (f"{name}-{number:02d}" for number in itertools.count(1))
    return runs / next(each for each in numbers if not any(_same(other, each) for other in taken))


def _same(taken: str, name: str) -> bool:
    return taken == name or taken.startswith((f"{name}-seed", f"{name}-split"))


def _require_free(folders: Sequence[Path]) -> None:
    """Refuse before the first fit what the last one would refuse."""
    for folder in folders:
        if os.path.lexists(folder):
            raise UsageError(
                f"`run` {folder} exists; give `overwrite=True` to replace it, or another name",
                parameter="run",
            )


def _marked(run: Run, series: str) -> Run:
    """Write into the record of a run which others belong to it."""
    made = replace(run, series=series)
    try:
        replace_record(run.folder, made)
    except OSError as error:
        raise Img2PromptError(
            f"run {run.folder} cannot be written: {error.strerror or error}", parameter="run"
        ) from None
    return made
