"""Search: settings of a head tried on inner folds of the training side, never on the held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.grouping import choose_grouping
from img2prompt_cache.data.inner_holdouts import inner_holdouts
from img2prompt_cache.data.splits import Split
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.destination import require_free_place
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.fitting.columns import choose_columns
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.record import describe_split
from img2prompt_cache.fitting.split_notes import note_test_set
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.heads.distil import Distil
from img2prompt_cache.heads.space import Space, to_json
from img2prompt_cache.progress import Callback, Event, ignore, task, warn
from img2prompt_cache.runs.names import joined_name
from img2prompt_cache.runs.tracking.track import Tracker
from img2prompt_cache.tuning.finished import FinishedStudy, trial_entry
from img2prompt_cache.tuning.spaces import space_name
from img2prompt_cache.tuning.study import FOLDER, SAMPLERS, FinishedTrial, searching

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Head, OnStep

FEW, HELD = 5000, 0.2
"""With fewer rows than this a trial is scored on folds; with more, on this share of them."""


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """What to search.

    Attributes
    ----------
    fit : FitConfig
        The head, the features, the target and the split. Settings are left at their defaults.
    space : mapping of str to Range
        Settings to search.
    trials : int
        How many there are to be in all, those of earlier calls included.
    sampler : str
        ``"random"`` or ``"tpe"``.
    prune : bool
        Stop a trial early if its score on the way is below the median of the trials before it.
    """

    fit: FitConfig
    space: Space
    trials: int
    sampler: str = "random"
    prune: bool = True


def search(
    cache: Cache, config: TuneConfig, file: Path, tell: Callback = ignore, tracker: Tracker | None = None
) -> FinishedStudy:
    """Search the settings of a head, or continue a search.

    A trial is scored by the mean cosine on rows of the training side: whole groups of them are held out, one
    lot after the other. Where rows have several prompts it is the cosine to their mean. The rows that will
    score the final run are never used. What trial i draws is seeded by i, so that a search that was
    interrupted continues as if it had not been.

    Parameters
    ----------
    cache : Cache
    config : TuneConfig
    file : pathlib.Path
        The study; made if it does not exist.
    tell : callable
        Gets an event ``"trial"`` for every finished trial, those of earlier calls first, a step of the task
        ``"trials"`` with each, and a note for a trial that failed.
    tracker : Tracker, optional
        Each trial of this call is written to it when it is finished.

    Returns
    -------
    FinishedStudy

    Raises
    ------
    UsageError
        If a name is unknown, the rows are too few, or the study is of something else, or would lie among the
        files of a run, or of a cache, its `studies` apart.
    Img2PromptError
        If the cache or the study is damaged, or another process is searching in the same study.
    """
    require_free_place(file, "study", own="studies/*")
    wanted = config.fit
    if config.sampler not in SAMPLERS:
        raise unknown("sampler", config.sampler, SAMPLERS, parameter="sampler")
    head = wanted.make_head()
    _require_searchable(head, config.space)
    target = choose_target(cache, wanted.encoder)
    views = bool(head.get_params().get("views"))
    data = load_dataset(cache, choose_columns(cache, head, wanted.features)[0], target, views=views)
    grouping = choose_grouping(cache, data, wanted.group_threshold)
    split = make_split(cache, data, wanted.split, wanted.holdout, wanted.seed, None, grouping)
    note_test_set(split, tell, "searched")
    rows = split.train
    X, y, groups = data.X[rows], np.asarray(data.training_targets[rows]), split.inner_groups(rows)
    held = inner_holdouts(groups, wanted.seed, few=FEW, share=HELD, what="a trial is scored")

    def score(settings: Mapping[str, Any], on_step: OnStep | None) -> float:
        tried = replace(wanted, settings=settings).make_head()
        return tried.validate(X, y, held, groups=groups, widths=data.widths, on_step=on_step)

    identity = identify(head, config.space, data, split, _described(UsedColumn.of(target)))
    with (
        searching(file, identity, warm_up=head.warm_up) as study,
        task(tell, "trials", config.trials) as advance,
    ):
        finished: list[FinishedTrial] = []
        for trial in study.trials:
            finished.append(trial)
            _tell(tell, trial)
            advance(1)
        while len(finished) < config.trials:
            seed = np.random.SeedSequence([wanted.seed, len(finished)]).generate_state(1).item()
            finished.append(study.attempt(config.sampler, seed, score, prune=config.prune))
            _tell(tell, finished[-1])
            if tracker is not None:
                tracker.write(partial(trial_entry, file, head.name, finished[-1]))
            advance(1)
    return FinishedStudy(file, head.name, config.space, finished)


def _tell(tell: Callback, trial: FinishedTrial) -> None:
    tell(Event("trial", value=trial))
    if trial.reason:
        warn(tell, f"trial {trial.number} failed: {trial.reason}")


def _require_searchable(head: Head, space: Space) -> None:
    """Refuse what would not change a trial: it fits a head on features and targets alone.

    Raises
    ------
    UsageError
        Naming the head, or the setting.
    """
    if head.name in (Blend.name, Distil.name):
        raise UsageError(
            f"{head.name} is made of runs, so its settings cannot be searched; tune its members",
            parameter="head",
        )
    if head.takes == "features" and "views" in space:
        raise UsageError(
            "a trial is scored on the images themselves, so `space` cannot search views; compare two fits",
            parameter="space",
        )


def identify(head: Head, space: Space, data: Dataset, split: Split, target: dict[str, Any]) -> dict[str, Any]:
    """Describe what a study searches; a study of anything else is not continued."""
    described: Mapping[str, Any] = describe_split(split, data, target["fingerprint"])
    fixed = {name: value for name, value in head.settings.items() if name not in {*space, "seed"}}
    return {
        "head": head.name,
        "space": to_json(space),
        "features": [_described(UsedColumn.of(column)) for column in data.features],
        "target": target,
        "seed": split.seed,
        "split": {name: described[name] for name in _SPLIT},
        "settings beside the space": fixed,
        **({} if data.means is None else {"train_on": data.train_on}),
    }


_SPLIT = (
    *("strategy", "seed", "folds", "digest", "held_digest", "train", "validation", "groups", "straddling"),
)
"""What a study records of its split. Not all that a run does: a study of an older version could not go on."""


def _described(use: UsedColumn) -> dict[str, Any]:
    """Describe a column, with its shape only where that says more than the width."""
    described = {**asdict(use), "shape": use.shape if len(use.shape) > 1 else ()}
    del described["current"]  # where weights lie changes nothing
    return described


def default_file(cache: Cache, config: FitConfig, space: str | Path | Mapping[str, Any] | None) -> Path:
    """Give the default file of a study: ``studies/mlp-resnet50+vit_base-seed.db`` in the cache."""
    columns, _ = choose_columns(cache, make_head(config.head), config.features)
    joined = joined_name([column.spec for column in columns])
    named = [config.head, joined, *filter(None, [space_name(space)])]
    return cache.folder / FOLDER / f"{'-'.join(named)[:100]}.db"
