"""Fits that differ in nothing but their seeds: those of the split, and those of the head."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
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
from img2prompt_cache.fitting.earlier import keep_earlier
from img2prompt_cache.fitting.fit import fit
from img2prompt_cache.fitting.options import is_made_of_runs, several
from img2prompt_cache.heads import make_head
from img2prompt_cache.progress import Callback, listening, note
from img2prompt_cache.runs.names import FOLDER, joined_name
from img2prompt_cache.runs.run import Run
from img2prompt_cache.runs.run_file import INFO, replace_record
from img2prompt_cache.runs.seeds import read_seeds
from img2prompt_cache.tables import counted

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
    and over seeds of the split, each for itself. The same call goes on after an interruption: runs of these
    names that were asked for in the same way, on the same rows, are kept.

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
        As `fit`; also if there are neither `seeds` nor `split_seeds`, a seed is no whole number, or a run of
        one of these names was asked for otherwise.

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
        asked = [
            {
                **parameters,
                "settings": own if made_of_runs or not _has_seed(head) else {**own, "seed": head_seed},
                "features": features,
                "soften": soften,
                "seed": head_seed if made_of_runs else split_seed,
            }
            for split_seed, head_seed in pairs
        ]
        names = [_suffix(pair, of_split, of_head) for pair in pairs]

        def keep(base: Path) -> dict[int, Run]:
            return keep_earlier(opened, head, asked, _folders(base, names))

        if run is None:
            last, base = _choose_name(opened, head, own, features, names)
            kept: dict[int, Run] = {}
            if last is not None:
                with suppress(Img2PromptError):  # made by a call for something else
                    base, kept = last, keep(last)
        else:
            base = Path(run)
            kept = {} if overwrite else keep(base)
        if kept:
            there = ", ".join(each.name for each in kept.values())
            note(tell, f"{len(kept)} of {counted(len(pairs), 'run', 'runs')} are there already: {there}")
        series = next(
            (each.series for each in kept.values() if each.series.partition("@")[0] == base.name),
            f"{base.name}@{datetime.now(UTC).isoformat(timespec='milliseconds')}",
        )
        found = []
        for number, (folder, each) in enumerate(zip(_folders(base, names), asked, strict=True)):
            made = kept.get(number) or fit(
                opened, head, run=folder, overwrite=overwrite, progress=tell, **each
            )
            found.append(made if len(pairs) == 1 or made.series == series else _marked(made, series))
    return found


def _folders(base: Path, names: Sequence[str]) -> list[Path]:
    return [base.with_name(base.name + name) for name in names]


def _is_random(head: str, settings: Mapping[str, Any], soften: str | Path | None) -> bool:
    return FitConfig(head=head, settings=settings, soften=soften).make_head().random


def _has_seed(head: str) -> bool:
    return "seed" in make_head(head).get_params()


def _suffix(pair: tuple[int, int], of_split: Sequence[int], of_head: Sequence[int]) -> str:
    """Name what tells a run apart: the seeds of which there are several."""
    split_seed, head_seed = pair
    split = f"-split{split_seed}" if len(of_split) > 1 else ""
    return split + (f"-seed{head_seed}" if len(of_head) > 1 else "")


def _choose_name(
    cache: Cache, head: str, settings: Mapping[str, Any], features: str | Sequence[str], names: Sequence[str]
) -> tuple[Path | None, Path]:
    """Choose a readable name that no run of the cache begins with, such as ``mlp-resnet50-01``.

    Returns
    -------
    last : pathlib.Path or None
        The name before it, where only runs with some of `names` are called so: the call that made them may
        have been interrupted.
    base : pathlib.Path
    """
    specs = several(features)
    if is_made_of_runs(head, settings):
        columns = choose_features(cache, specs or cheapest(cache))
    else:
        columns, _ = choose_columns(cache, make_head(head, **settings), specs)
    name = f"{head}-{joined_name([column.spec for column in columns])}"[:80]
    runs = cache.folder / FOLDER
    taken = [path.name for path in runs.iterdir()] if runs.is_dir() else []
    last, there = None, set[str]()
    for number in itertools.count(1):
        base = runs / f"{name}-{number:02d}"
        begun = {each for each in taken if _same(each, base.name)}
        if not begun:
            break
        last, there = base, begun
    if last is not None:
        folders = _folders(last, names)
        whole = all((folder / INFO).is_file() for folder in folders)
        if whole or not there <= {folder.name for folder in folders}:
            last = None
    return last, base


def _same(taken: str, name: str) -> bool:
    return taken == name or taken.startswith((f"{name}-seed", f"{name}-split"))


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
