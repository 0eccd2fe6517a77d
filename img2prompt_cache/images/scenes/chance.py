"""Random choices that are the same on every platform and in every Python release."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def pick(items: Sequence[T], rng: random.Random) -> T:
    """Choose one of `items`; unlike `random.Random.choice`, the same one in every Python release."""
    return items[int(rng.random() * len(items))]


def between(rng: random.Random, low: float, high: float) -> float:
    """Draw a number uniformly from an interval."""
    return low + (high - low) * rng.random()


def shuffled_cycle(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """Yield `items` for ever in random order; all of them appear before any is repeated."""
    while True:
        yield from sorted(items, key=lambda _: rng.random())
