"""Chance that falls the same on every platform and in every Python release."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def pick(items: Sequence[T], rng: random.Random) -> T:
    """Pick one of `items`; unlike `random.Random.choice`, the same one in every Python release."""
    return items[int(rng.random() * len(items))]


def between(rng: random.Random, low: float, high: float) -> float:
    """Draw a number between two others."""
    return low + (high - low) * rng.random()


def deck(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """Deal `items` in random order, all of them before any comes again."""
    while True:
        yield from sorted(items, key=lambda _: rng.random())
