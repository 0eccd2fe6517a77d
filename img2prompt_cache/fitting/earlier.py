"""Runs that are there already: whether they are what a fit would make, so that it need not be made again."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as remember
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.data.columns import UsedColumn, choose_features, choose_target
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import UsageError
from img2prompt_cache.files import restore
from img2prompt_cache.fitting.columns import choose_columns
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.distil import cheapest, distil_request
from img2prompt_cache.fitting.options import fit_config, is_made_of_runs, require_consistent, several
from img2prompt_cache.fitting.record import describe_split
from img2prompt_cache.fitting.single import load_fit_rows
from img2prompt_cache.runs.names import open_run
from img2prompt_cache.runs.record import SplitRecord, same_split
from img2prompt_cache.runs.run import Run, load_run

if TYPE_CHECKING:
    from img2prompt_cache.cache.reader import Cache


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What a fit is asked for.

    Attributes
    ----------
    request : dict
        As its run would record it.
    features : tuple of UsedColumn
    target : UsedColumn
    split : callable
        Gives the record of its split; that takes time.
    """

    request: dict[str, Any]
    features: tuple[UsedColumn, ...]
    target: UsedColumn
    split: Callable[[], SplitRecord]

    def difference(self, run: Run) -> str:
        """Say in what a run is something else; nothing if it is what the fit would make.

        What `extra` and `soften` name counts by its path: pairs and prompts are not compared.
        """
        if not run.request:
            return "it does not say what it was fitted with"
        for name, wanted in self.request.items():
            was = run.request.get(name, _DEFAULTS.get(name))
            if was != wanted:
                return f"`{name}` was {_short(was)}, and is {_short(wanted)} now"
        for what, before, now in (
            ("features", run.features, self.features),
            ("targets", (run.target,), (self.target,)),
        ):
            if before != now:
                specs = (" + ".join(each.spec for each in columns) for columns in (before, now))
                return "its {} were {}, and are {} now".format(what, *specs)
        if not same_split(run.split, self.split()):
            return "rows of the cache have changed since, or there are more"
        return ""


def keep_earlier(
    cache: Cache, head: str, fits: Sequence[Mapping[str, Any]], folders: Sequence[Path]
) -> dict[int, Run]:
    """Open those of some runs that are there already, having compared them with what is asked for.

    Parameters
    ----------
    cache : Cache
    head : str
    fits : sequence of mapping
        Parameters of `fit` for each run. They differ in their seeds alone.
    folders : sequence of pathlib.Path
        Of each run.

    Returns
    -------
    dict of int to Run
        By its place among `fits`.

    Raises
    ------
    UsageError
        If something is there that is not what the fit would make.
    Img2PromptError
        If a run that is there, or the cache, is damaged.
    """
    there = {number: folder for number, folder in enumerate(folders) if _is_taken(folder)}
    wanted = _wanted(cache, head, fits) if there else []
    found = {}
    for number, folder in there.items():
        try:
            found[number] = load_run(folder)
        except UsageError:
            why = "is no run"
        else:
            why = wanted[number].difference(found[number])
        if why:
            raise UsageError(
                f"`run` {folder} exists, and {why}; give `overwrite=True` to replace it, or another name",
                parameter="run",
            )
    return found


def _is_taken(folder: Path) -> bool:
    """Tell whether something is there; an empty folder, as a fit that was killed leaves it, is nothing."""
    restore(folder)
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return os.path.lexists(folder)  # a link to nowhere
    except OSError:
        return True


def _wanted(cache: Cache, head: str, fits: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    settings = fits[0]["settings"]
    if not is_made_of_runs(head, settings):
        known = inspect.signature(fit_config).parameters
        asked = [{name: value for name, value in each.items() if name in known} for each in fits]
        return wanted_heads(cache, [fit_config(head, **each) for each in asked])
    teacher = fits[0].get("teacher")
    require_consistent(head, () if teacher is None else ("teacher",), settings)
    run = open_run(teacher, cache)
    return [
        wanted_student(
            cache,
            run,
            each["seed"],
            features=several(each["features"]),
            settings=settings,
            refit=each.get("refit", True),
        )
        for each in fits
    ]


def wanted_heads(cache: Cache, configs: list[FitConfig]) -> list[Wanted]:
    """Give what fits are asked for that differ in their seeds alone: the rows are read once for all."""
    first = configs[0]
    features, texts = choose_columns(cache, first.make_head(), first.features)
    target = choose_target(cache, first.encoder)

    @remember
    def rows() -> Any:
        return load_fit_rows(cache, first, first.make_head(), (features, target, texts), hold=False)

    @remember
    def split(seed: int) -> SplitRecord:
        data, grouping = rows()
        made = make_split(cache, data, first.split, first.holdout, seed, first.folds, grouping)
        return describe_split(made, data, target.fingerprint)

    return [
        Wanted(
            request=_as_recorded(config.describe()),
            features=tuple(map(UsedColumn.of, features)),
            target=UsedColumn.of(target),
            split=partial(split, config.seed),
        )
        for config in configs
    ]


def wanted_student(
    cache: Cache,
    teacher: Run,
    seed: int,
    *,
    features: tuple[str, ...],
    settings: Mapping[str, Any],
    refit: bool,
) -> Wanted:
    """Give what a student of a run is asked for; the parameters are those of `fit_distil`."""
    columns = choose_features(cache, features or cheapest(cache))
    return Wanted(
        request=_as_recorded(distil_request(teacher, settings, seed, refit=refit)),
        features=tuple(map(UsedColumn.of, columns)),
        target=teacher.target,
        split=lambda: teacher.split,
    )


_DEFAULTS = FitConfig().describe()
"""What runs of an earlier version were asked for that do not say so yet."""


def _as_recorded(request: dict[str, Any]) -> dict[str, Any]:
    """Give what was asked for as it is read back from `run.json`."""
    read: dict[str, Any] = json.loads(json.dumps(request))
    return read


def _short(value: Any) -> str:
    text = "not given" if value is None else json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:80]}…"
