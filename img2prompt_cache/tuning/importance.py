"""Importance: what each setting of a search did to the score."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.heads.space import Choices, LogUniform, Range, Space, Whole
from img2prompt_cache.tuning.storage import load_optuna
from img2prompt_cache.tuning.study import COMPLETE, FAILED, PRUNED, FinishedTrial

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution

BINS = 4
"""A range is divided at its quartiles."""

FEWEST = 50
"""With fewer scored trials main effects are not told: those of noise look like those of real settings."""

PERMUTATIONS, CHANCE_TREES = 20, 8
"""How often scores are shuffled among the trials, and the trees of the forest that is fitted each time."""


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
    ci95 : pair of float, or None
        Interval of the mean, by Student's t; None for fewer than two scores.
    """

    value: str
    scored: int
    pruned: int
    failed: int
    mean: float | None
    sd: float | None
    best: float | None
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Influence:
    """What one setting did to the score.

    Attributes
    ----------
    setting : str
    main_effect : float or None
        Share of the variance of the score over the space that the setting explains alone, 0…1; None with
        fewer than `FEWEST` scored trials, or where all scores are the same. What all of these leave is
        interactions of settings, and noise.
    chance : float or None
        The highest main effect of this setting in `PERMUTATIONS` tries with the scores shuffled among the
        trials. A main effect that is not above it says nothing.
    marginals : tuple of Marginal
    """

    setting: str
    main_effect: float | None
    chance: float | None
    marginals: tuple[Marginal, ...]


def influence(space: Space, trials: Sequence[FinishedTrial]) -> list[Influence]:
    """Measure what each setting did to the score, the most important first.

    Parameters
    ----------
    space : mapping of str to Range
    trials : sequence of FinishedTrial
        Only complete ones have a score; pruned and failed ones are counted.
    """
    effects = main_effects(space, trials)
    found = []
    for setting, each in space.items():
        effect, chance = effects.get(setting, (None, None))
        found.append(Influence(setting, effect, chance, marginals(each, setting, trials)))
    return sorted(found, key=lambda each: -(each.main_effect or 0.0))


def interactions(table: Sequence[Influence]) -> float | None:
    """Share of the variance that no setting explains alone: interactions, and noise that the forest took up.

    None where main effects are not told.
    """
    effects = [each.main_effect for each in table if each.main_effect is not None]
    return max(0.0, 1 - sum(effects)) if effects else None


def main_effects(space: Space, trials: Sequence[FinishedTrial]) -> dict[str, tuple[float, float]]:
    """Share of each setting alone in the variance of the score over the space, and how much chance gives it.

    Functional ANOVA on a random forest (Hutter, Hoos and Leyton-Brown, 2014, ICML), as Optuna computes it. A
    setting that was searched on a logarithmic scale is weighed on that scale, as it was drawn. A forest fits
    noise, too, and then some setting always explains most: so the scores are also shuffled among the trials.

    Returns
    -------
    dict of str to (float, float)
        Empty with fewer than `FEWEST` scores, or where they are all the same.
    """
    scored = [trial for trial in trials if trial.state == COMPLETE]
    scores = np.array([trial.cosine for trial in scored], np.float64)
    if len(scored) < FEWEST or len(np.unique(scores)) < 2:
        return {}
    axes = {setting: _axis(each) for setting, each in space.items()}
    places = [
        {setting: _place(space[setting], value) for setting, value in trial.settings.items()}
        for trial in scored
    ]
    found = _variance_shares(axes, places, scores, trees=64, seed=0)
    rng = np.random.default_rng(0)
    tries = [
        _variance_shares(axes, places, rng.permutation(scores), trees=CHANCE_TREES, seed=number)
        for number in range(PERMUTATIONS)
    ]
    return {
        setting: (share, max((each[setting] for each in tries), default=0.0))
        for setting, share in found.items()
    }


def _variance_shares(
    axes: Mapping[str, BaseDistribution],
    places: Sequence[dict[str, Any]],
    scores: NDArray[np.float64],
    *,
    trees: int,
    seed: int,
) -> dict[str, float]:
    """Compute the share of each setting alone in the variance of a forest that was fitted to some scores."""
    optuna = load_optuna()
    study = optuna.create_study(direction="maximize")
    for place, score in zip(places, scores.tolist(), strict=True):
        study.add_trial(optuna.trial.create_trial(params=place, distributions=dict(axes), value=score))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed, n_trees=trees)
    # Not `get_param_importances`: it scales the shares to a sum of 1, and hides what settings do together.
    shares = evaluator.evaluate(study)
    return {setting: float(shares.get(setting, 0.0)) for setting in axes}


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
        ci95=_interval(scores),
    )


def _interval(scores: NDArray[np.float64]) -> tuple[float, float] | None:
    """Compute the 95 % interval of a mean of independent scores, by Student's t."""
    from scipy.stats import t

    if len(scores) < 2:
        return None
    reach = float(t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores)))
    return float(scores.mean()) - reach, float(scores.mean()) + reach


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
