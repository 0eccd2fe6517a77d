"""The engine of a fit: this process, or a Ray cluster whose machines sum up parts of the rows."""

from __future__ import annotations

from pathlib import Path

from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads import HEADS, head_class
from img2prompt_cache.numerics.workers import require_workers


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
    require_workers(engine, count, address)
    if engine == "local":
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
