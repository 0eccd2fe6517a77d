"""Importance: what each setting of a search did to the score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.heads.space import Choices, LogUniform, Range, Space, Whole
from img2prompt_cache.tuning.storage import load_optuna
from img2prompt_cache.tuning.study import COMPLETE, FAILED, PRUNED, FinishedTrial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

BINS = 4
"""A range is divided at its quartiles."""


@dataclass(frozen=True, slots=True)
class Marginal:
    """The trials in which a setting had one value, or one within some bounds.

    Attributes
    ----------
    value : str
        The value, or the least and greatest of the trials with dots between.
    scored, pruned, failed : int
        How many there are.
    mean, sd, best : float or None
        Of the scores; the standard deviation is that of a sample.
    """

    value: str
    scored: int
    pruned: int
    failed: int
    mean: float | None
    sd: float | None
    best: float | None


@dataclass(frozen=True, slots=True)
class Influence:
    """What one setting did: its share of the variance of the score (None if unknown), and its marginals."""

    setting: str
    importance: float | None
    marginals: tuple[Marginal, ...]


def influence(space: Space, trials: Sequence[FinishedTrial]) -> list[Influence]:
    """Measure what each setting did to the score, the most important first.

    Parameters
    ----------
    space : mapping of str to Range
    trials : sequence of FinishedTrial
        Only complete ones have a score; pruned and failed ones are counted.
    """
    share = importances(space, trials)
    found = [
        Influence(setting, share.get(setting), marginals(each, setting, trials))
        for setting, each in space.items()
    ]
    return sorted(found, key=lambda each: -(each.importance or 0.0))


def importances(space: Space, trials: Sequence[FinishedTrial]) -> dict[str, float]:
    """Share of each setting alone in the variance of the score over the space, summing to 1.

    Functional ANOVA on a random forest (Hutter, Hoos and Leyton-Brown, 2014, ICML), as Optuna computes it. A
    setting that was searched on a logarithmic scale is weighed on that scale, as it was drawn.

    Returns
    -------
    dict of str to float
        Empty where the scores are fewer than two, or all the same.
    """
    optuna = load_optuna()
    scored = [trial for trial in trials if trial.state == COMPLETE]
    if len({trial.cosine for trial in scored}) < 2:
        return {}
    axes = {setting: _axis(each) for setting, each in space.items()}
    study = optuna.create_study(direction="maximize")
    for trial in scored:
        place = {setting: _place(space[setting], value) for setting, value in trial.settings.items()}
        study.add_trial(optuna.trial.create_trial(params=place, distributions=axes, value=trial.cosine))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    share = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {setting: float(value) for setting, value in share.items()}


def marginals(each: Range, setting: str, trials: Sequence[FinishedTrial]) -> tuple[Marginal, ...]:
    """Sum up the trials by the value of one setting: every choice, or the quartiles of a range."""
    if isinstance(each, Choices):
        return tuple(
            _marginal(name_of(value), [trial for trial in trials if trial.settings[setting] == value])
            for value in each.values
        )
    if not trials:
        return ()
    values = np.array([trial.settings[setting] for trial in trials])
    tried = np.unique(values)
    edges = tried[1:] if len(tried) <= BINS else np.quantile(values, np.arange(1, BINS) / BINS)
    bins = np.searchsorted(edges, values, side="right")
    found = []
    for number in np.unique(bins):
        inside = values[bins == number]
        low, high = (name_of(bound.item()) for bound in (inside.min(), inside.max()))
        chosen = [trial for trial, place in zip(trials, bins, strict=True) if place == number]
        found.append(_marginal(low if low == high else f"{low}…{high}", chosen))
    return tuple(found)


def name_of(value: Any) -> str:
    """Write a value for people: ``0.000123``, ``adam``, ``512, 512``."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(name_of, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _marginal(value: str, trials: Sequence[FinishedTrial]) -> Marginal:
    scores = np.array([trial.cosine for trial in trials if trial.state == COMPLETE], np.float64)
    return Marginal(
        value=value,
        scored=len(scores),
        pruned=sum(trial.state == PRUNED for trial in trials),
        failed=sum(trial.state == FAILED for trial in trials),
        mean=float(scores.mean()) if len(scores) else None,
        sd=float(scores.std(ddof=1)) if len(scores) > 1 else None,
        best=float(scores.max()) if len(scores) else None,
    )


def _axis(each: Range) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(each, Choices):
        return CategoricalDistribution(range(len(each.values)))
    if isinstance(each, Whole):
        return IntDistribution(each.low, each.high)
    return FloatDistribution(float(_place(each, each.low)), float(_place(each, each.high)))


def _place(each: Range, value: Any) -> float | int:
    if isinstance(each, Choices):
        return each.values.index(value)
    return float(np.log10(value)) if isinstance(each, LogUniform) else value
