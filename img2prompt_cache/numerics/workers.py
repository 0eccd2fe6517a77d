"""Workers that share a computation over rows: none, unless an engine says so for the calls within a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Map(Protocol):
    """Computes a function of each item somewhere, and gives the results in the order of the items."""

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any], /) -> Iterator[Any]:
        """Compute; the function and the items are pickled."""


_map: ContextVar[Map | None] = ContextVar("map", default=None)


@contextmanager
def shared_by(workers: Map) -> Iterator[None]:
    """Let workers share what is computed over rows in the block."""
    before = _map.set(workers)
    try:
        yield
    finally:
        _map.reset(before)


def are_there() -> bool:
    """Whether there are workers."""
    return _map.get() is not None


def share(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Compute a function of each item, by the workers or else here, one after the other."""
    workers = _map.get()
    return map(function, items) if workers is None else workers(function, items)
