"""Workers that share a computation over rows: none, unless an engine says so for the calls within a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol, TypeVar

from img2prompt_cache.cluster import connected, map_on, require_engine
from img2prompt_cache.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Map(Protocol):
    """Computes a function of each item somewhere, and gives the results in the order of the items."""

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
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


def require_workers(engine: str, count: int | None = None, address: str | None = None) -> None:
    """Check an engine whose workers are to share a computation.

    Parameters
    ----------
    engine : {"local", "ray"}
        ``"local"`` has none.
    count : int, optional
        Items that they compute at once.
    address : str, optional
        Of the Ray cluster.

    Raises
    ------
    UsageError
        If there is no such engine, or it takes no workers or no address.
    """
    require_engine(engine, count, address=address)
    if engine == "local" and count is not None:
        raise UsageError(
            '`workers` has no meaning for `engine="local"`, which uses all cores; add `engine="ray"`',
            parameter="workers",
        )


@contextmanager
def computing_on(
    engine: str, count: int | None = None, address: str | None = None, *, gpus: bool = False
) -> Iterator[None]:
    """Let the workers of an engine share what is computed in the block.

    Parameters
    ----------
    engine, count, address
        As for `require_workers`.
    gpus : bool
        Whether they take GPUs, where the cluster has any.

    Raises
    ------
    UsageError, Img2PromptError
        As `require_workers` and `connected`.
    """
    require_workers(engine, count, address)
    if engine == "local":
        yield
        return
    with connected(address) as ray, shared_by(partial(map_on, ray, count, gpus=gpus)):
        yield


def are_there() -> bool:
    """Whether there are workers."""
    return _map.get() is not None


def share(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Compute a function of each item, by the workers or else here, one after the other."""
    workers = _map.get()
    return map(function, items) if workers is None else workers(function, items)
