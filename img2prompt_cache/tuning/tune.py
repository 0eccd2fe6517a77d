"""Tuning: try settings of a head on inner folds of the training side; the hold-out has no say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, choose_target
from img2prompt_cache.data.dataset import Dataset, load_dataset
from img2prompt_cache.data.inner_holdouts import inner_holdouts
from img2prompt_cache.data.splits import Split
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.fitting.columns import choose_columns
from img2prompt_cache.fitting.fit import Choice, seeded
from img2prompt_cache.fitting.record import describe_split
from img2prompt_cache.heads import make_head
from img2prompt_cache.heads.blend import Blend
from img2prompt_cache.heads.distil import Distil
from img2prompt_cache.heads.space import Space, to_json
from img2prompt_cache.runs.names import short_name
from img2prompt_cache.tuning.study import COMPLETE, FAILED, FOLDER, SAMPLERS, FinishedTrial, searching

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Head, OnStep

FEW, HELD = 5000, 0.2
"""With fewer rows than this a trial is scored on folds; with more, on this share of them."""


@dataclass(frozen=True, slots=True)
class Search:
    """What `tune` was asked for.

    Attributes
    ----------
    choice : Choice
        The head, the features, the target and the split. Its settings are left at their defaults.
    space : mapping of str to Range
        Settings to search.
    trials : int
        How many there are to be in all, those of earlier calls included.
    sampler : str
        ``"random"`` or ``"tpe"``.
    prune : bool
        Stop trials that do worse on the way than half of those before them.
    """

    choice: Choice
    space: Space
    trials: int
    sampler: str = "random"
    prune: bool = True


def tune(
    cache: Cache, search: Search, file: Path, told: Callable[[FinishedTrial], None]
) -> list[FinishedTrial]:
    """Search the settings of a head, or go on with a search.

    A trial is scored by the mean cosine on rows of the training side that it holds out in turns, whole groups
    of them; the rows that will score the final run are never looked at. What trial i draws is seeded by i, so
    that a search that was interrupted goes on as if it had not been.

    Parameters
    ----------
    cache : Cache
    search : Search
    file : pathlib.Path
        The study; made if it is not there.
    told : callable
        Told every finished trial, those of earlier calls first.

    Returns
    -------
    list of FinishedTrial
        All of them, in order.

    Raises
    ------
    UsageError
        If a name is unknown, the rows are too few, or the study is of something else.
    Img2PromptError
        If the cache or the study is damaged, or another search is at work on the study.
    """
    choice = search.choice
    if search.sampler not in SAMPLERS:
        raise unknown("sampler", search.sampler, SAMPLERS)
    head = seeded(make_head(choice.head), choice.seed)
    _require_searchable(head, search.space)
    target = choose_target(cache, choice.encoder)
    views = bool(head.get_params().get("views"))
    data = load_dataset(cache, choose_columns(cache, head, choice.features)[0], target, views=views)
    split = make_split(cache, data, choice.split, choice.fraction, choice.seed)
    rows = split.train
    X, y = data.X[rows], data.y[rows]
    groups = split.inner_groups(rows)
    held = inner_holdouts(groups, choice.seed, few=FEW, share=HELD, what="a trial is scored")

    def score(settings: dict[str, Any], report: OnStep | None) -> float:
        tried = seeded(make_head(choice.head, **settings), choice.seed)
        return tried.validate(X, y, held, groups=groups, widths=data.blocks, on_step=report)

    identity = identify(head, search.space, data, split, _described(UsedColumn.of(target)))
    with searching(file, identity, warm_up=head.warm_up) as study:
        finished = study.trials
        for trial in finished:
            told(trial)
        while len(finished) < search.trials:
            seed = np.random.SeedSequence([choice.seed, len(finished)]).generate_state(1).item()
            finished.append(study.attempt(search.sampler, seed, score, prune=search.prune))
            told(finished[-1])
    return finished


def _require_searchable(head: Head, space: Space) -> None:
    """Refuse what a trial would not feel: it fits a head on features and targets alone.

    Raises
    ------
    UsageError
        Naming the head, or the setting.
    """
    if head.name in (Blend.name, Distil.name):
        raise UsageError(f"tune fits heads by themselves, and {head.name} is made of runs; tune its members")
    if head.takes == "features" and "views" in space:
        raise UsageError("tune scores on the images themselves, so it cannot search views; compare two fits")


def best(trials: list[FinishedTrial]) -> FinishedTrial:
    """Give the trial with the highest score, the first of equals.

    Raises
    ------
    Img2PromptError
        If none has one.
    """
    complete = [trial for trial in trials if trial.state == COMPLETE]
    if not complete:
        why = next((f": {trial.reason}" for trial in trials if trial.state == FAILED), "")
        raise Img2PromptError(f"none of {len(trials)} trials has a score{why}; search another space")
    return max(complete, key=lambda trial: (trial.cosine, -trial.number))


def identify(head: Head, space: Space, data: Dataset, split: Split, target: dict[str, Any]) -> dict[str, Any]:
    """What a study keeps of what it searched; one of anything else is not gone on with."""
    fixed = {name: value for name, value in head.get_params().items() if name not in {*space, "seed"}}
    return {
        "head": head.name,
        "space": to_json(space),
        "features": [_described(UsedColumn.of(column)) for column in data.features],
        "target": target,
        "seed": split.seed,
        "split": describe_split(split, data),
        "settings beside the space": fixed,
    }


def _described(use: UsedColumn) -> dict[str, Any]:
    """What is kept of a column: its shape where it says more than the width."""
    return {**asdict(use), "shape": use.shape if len(use.shape) > 1 else ()}


def default_file(cache: Cache, choice: Choice, space: str | None) -> Path:
    """Where a study goes that was given no name: ``studies/mlp-resnet50+vit_base-seed.db`` in the cache."""
    columns, _ = choose_columns(cache, make_head(choice.head), choice.features)
    joined = "+".join(short_name(column.spec) for column in columns)
    named = [choice.head, joined, *([Path(space).stem] if space else [])]
    return cache.folder / FOLDER / f"{'-'.join(named)[:100]}.db"
