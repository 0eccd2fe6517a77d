"""Ranges of settings as distributions of Optuna, and its values as settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from img2prompt_cache.heads.space import Choices, LogUniform, Range, Whole

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def distribution(each: Range) -> BaseDistribution:
    """Give the distribution that Optuna draws the values of a range from."""
    from optuna import distributions

    if isinstance(each, Choices):
        return distributions.CategoricalDistribution([label(value) for value in each.values])
    if isinstance(each, Whole):
        return distributions.IntDistribution(each.low, each.high)
    return distributions.FloatDistribution(each.low, each.high, log=isinstance(each, LogUniform))


def label(value: Any) -> Any:
    """Give what Optuna stores of a choice: it takes no lists."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def value_of(each: Range, kept: Any) -> Any:
    """Turn what Optuna stores into a value of a range.

    Raises
    ------
    KeyError, ValueError
        If the range has no such value.
    """
    if isinstance(each, Choices):
        return {label(value): value for value in each.values}[kept]
    if not (isinstance(kept, int | float) and each.low <= kept <= each.high):
        raise ValueError(f"a trial has the value {kept!r}, which is out of its range")
    return int(kept) if isinstance(each, Whole) else float(kept)
