"""Ranges: what each setting of a head may be in a search, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from img2prompt_cache.errors import UsageError, unknown

LARGEST = 2**53
"""Beyond this a float no longer tells whole numbers apart."""


@dataclass(frozen=True, slots=True)
class Choices:
    """One of some values, each as likely as the others: None, booleans, numbers, texts, or lists of them."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Uniform:
    """Any number from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Any number from `low`, above 0, to `high`; its logarithm is uniform."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Whole:
    """Any whole number from `low` to `high`."""

    low: int
    high: int


Range = Choices | Uniform | LogUniform | Whole
Space = Mapping[str, Range]

KINDS: dict[str, type[Uniform | LogUniform | Whole]] = {"uniform": Uniform, "log": LogUniform, "int": Whole}
"""What JSON calls the ranges that are not choices."""

_LIKE = '"lr": {"log": [0.00001, 0.01]}, "batch_size": [16, 32]'


def to_json(space: Space) -> dict[str, Any]:
    """Write a space as JSON values: choices as a list, any other range as ``{"log": [low, high]}``."""
    return {setting: _to_json(each) for setting, each in space.items()}


def from_json(data: object, where: str) -> Space:
    """Read a space from JSON values.

    Parameters
    ----------
    data : object
        As `to_json` gives it.
    where : str
        The file it came from, for messages.

    Raises
    ------
    UsageError
        Naming the setting and what is wrong with it.
    """
    if not isinstance(data, dict) or not data:
        raise UsageError(f"{where} is no search space; write an object of settings, like {{{_LIKE}}}")
    return {setting: _from_json(each, f"{where}, {setting!r}") for setting, each in data.items()}


def _to_json(each: Range) -> Any:
    if isinstance(each, Choices):
        return [list(value) if isinstance(value, tuple) else value for value in each.values]
    kind = next(name for name, kind in KINDS.items() if isinstance(each, kind))
    return {kind: [each.low, each.high]}


def _from_json(data: object, where: str) -> Range:
    if isinstance(data, list):
        return _choices(data, where)
    if not isinstance(data, dict) or len(data) != 1:
        raise UsageError(f"{where}: write a list of choices, or one of {', '.join(KINDS)}; like {_LIKE}")
    ((name, bounds),) = data.items()
    if name not in KINDS:
        raise unknown("kind of range", name, KINDS, where=f"in {where}")
    number = int if name == "int" else (int, float)
    if not (
        isinstance(bounds, list)
        and len(bounds) == 2
        and all(isinstance(bound, number) and _is_scalar(bound) for bound in bounds)
        and not any(isinstance(bound, bool) for bound in bounds)
    ):
        raise UsageError(f"{where}: {name} takes two {'whole ' * (name == 'int')}numbers, [low, high]")
    low, high = bounds
    if not low < high:
        raise UsageError(f"{where}: low must be below high, but {low} is not below {high}")
    if name == "log" and low <= 0:
        raise UsageError(f"{where}: log takes numbers above 0, not {low}")
    if name == "int":
        return Whole(low, high)
    return LogUniform(float(low), float(high)) if name == "log" else Uniform(float(low), float(high))


def _choices(values: list[Any], where: str) -> Choices:
    if not values:
        raise UsageError(f"{where}: there is nothing to choose from; name a value")
    for number, value in enumerate(values):
        if not all(map(_is_scalar, value if isinstance(value, list) else [value])):
            raise UsageError(f"{where}: a choice is a finite number, a text, true, false, null, or a list")
        if value in values[:number]:  # 1, 1.0 and true are equal, here and to whoever counts the choices
            raise UsageError(f"{where}: {value!r} is there twice")
    return Choices(tuple(values))


def _is_scalar(value: object) -> bool:
    if isinstance(value, int | float):
        return math.isfinite(value) if isinstance(value, float) else abs(value) <= LARGEST
    return value is None or isinstance(value, str)
