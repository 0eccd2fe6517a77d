"""The engine of a fit: this process, or a Ray cluster whose machines sum up parts of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from img2prompt_cache.cluster import connected, map_on, require_engine
from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads import HEADS, head_class
from img2prompt_cache.numerics import workers


def require_shared(
    engine: str,
    count: int | None,
    address: str | None,
    head: str,
    *,
    extra: bool = False,
    soften: str | Path | None = None,
) -> None:
    """Check that an engine can fit a head.

    Parameters
    ----------
    engine : {"local", "ray"}
    count : int or None
        Number of workers.
    address : str or None
        Of the Ray cluster.
    head : str
        Its name.
    extra : bool
        Whether it is to be fitted on extra pairs.
    soften : str or path or None
        Its soft bank.

    Raises
    ------
    UsageError
        If there is no such engine, it takes no workers or no address, or cannot fit that.
    """
    require_engine(engine, address=address)
    if count is not None and count < 1:
        raise UsageError(f"`workers` must be at least 1, not {count}", parameter="workers")
    if engine == "local":
        if count is not None:
            raise UsageError(
                '`workers` has no meaning for `engine="local"`, which uses all cores; add `engine="ray"`',
                parameter="workers",
            )
        return
    if not head_class(head).shares:
        able = ", ".join(name for name in HEADS if head_class(name).shares)
        raise UsageError(
            f'`engine="ray"` fits heads that are sums over rows: {able}; {head} is fitted on one machine, '
            "so leave `engine` out",
            parameter="engine",
        )
    for name, given in (("extra", extra), ("soften", soften is not None)):
        if given:
            raise UsageError(
                f'`{name}` must be held in memory, and `engine="ray"` reads rows where they are used; leave '
                "one out",
                parameter=name,
            )


@contextmanager
def computing_on(engine: str, count: int | None, address: str | None) -> Iterator[None]:
    """Compute on an engine what is computed over rows in the block.

    Parameters
    ----------
    engine, count, address
        As for `require_shared`.

    Raises
    ------
    UsageError, Img2PromptError
        As `connected`.
    """
    if engine == "local":
        yield
        return
    with connected(address) as ray, workers.shared_by(partial(map_on, ray, count)):
        yield
