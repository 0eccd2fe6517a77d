"""A Ray cluster: opened, and given functions that its machines compute on the items of a list."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import Any, TypeVar

from img2prompt_cache.errors import Img2PromptError, UsageError, unknown

ENGINES = ("local", "ray")
"""What computes: this machine, or a Ray cluster."""
RETRIES = 3
"""How often an item is computed again whose worker was lost; the kernel may have killed it for memory."""
AHEAD = 4
"""Items in so many per worker may be done before the one that is waited for; their results take memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def require_engine(engine: str, workers: int | None = None, *, address: str | None = None) -> None:
    """Check the name of an engine, the number of its workers, and that it takes an address if one is given.

    Raises
    ------
    UsageError
        If there is no such engine, it takes no address, or there are to be no workers.
    """
    if engine not in ENGINES:
        raise unknown("`engine`", engine, ENGINES, parameter="engine")
    if address is not None and engine != "ray":
        raise UsageError(
            f'`ray_address` has no meaning for `engine="{engine}"`; add `engine="ray"`',
            parameter="ray_address",
        )
    if workers is not None and workers < 1:
        raise UsageError(f"`workers` must be at least 1, not {workers}", parameter="workers")


@contextmanager
def connected(address: str | None, module: str = "ray") -> Iterator[Any]:
    """Connect to a Ray cluster in the block; a session that this process has open already is used, and stays.

    Parameters
    ----------
    address : str or None
        ``"auto"``, ``"host:port"`` or ``"ray://host:port"``. If None, the open session, or else a cluster of
        this machine alone, which is started.
    module : str
        What of Ray is needed.

    Yields
    ------
    module
        `ray`.

    Raises
    ------
    UsageError
        If Ray is not installed.
    Img2PromptError
        If there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import_module(module)
        import ray
    except ImportError:
        advice = "install it with `pip install 'img2prompt-cache[ray]'`"
        raise UsageError(f'`engine="ray"` needs Ray; {advice}', parameter="engine") from None
    if address is None and ray.is_initialized():
        yield ray
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        _require_answer(address)
        ray.init(
            address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise Img2PromptError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray puts its own in place
    try:
        yield ray
    finally:
        ray.shutdown()


def map_on(
    ray: Any,
    workers: int | None,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    gpus: bool = False,
) -> Iterator[Result]:
    """Compute a function of each item on the cluster; what a lost worker had in hand is computed again.

    Parameters
    ----------
    ray : module
        Connected.
    workers : int or None
        Items computed at once; one for each machine if None, or for each GPU. The cores of a machine are
        divided among its share of them.
    function : callable
        Sent once, with all that it refers to.
    items : iterable
        Taken one by one, as they are sent.
    gpus : bool
        Whether each item is to have a GPU, where the cluster has any.

    Yields
    ------
    result
        Of each item, in the order of the items, whichever was done first.

    Raises
    ------
    Img2PromptError
        What a worker failed with, or that workers were lost again and again.
    """
    cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    cores = [each for each in cores if each >= 1]  # a machine without may hold the cluster together
    cards = int(ray.cluster_resources().get("GPU", 0)) if gpus else 0
    at_once = workers or cards or max(1, len(cores))
    each = max(1, int(min(cores, default=1)) // math.ceil(at_once / max(1, len(cores))))
    # A worker keeps its process, also on a GPU: it may hold models for the next item.
    remote = ray.remote(num_cpus=each, num_gpus=int(cards > 0), max_retries=RETRIES, max_calls=0)
    task, sent, source = remote(_apply), ray.put(function), iter(items)
    left = [*islice(source, 1)]
    order: deque[Any] = deque()
    running: list[Any] = []
    try:
        while left or order:
            while left and len(running) < at_once and len(order) < AHEAD * at_once:
                running.append(task.remote(sent, *left))
                order.append(running[-1])
                left = [*islice(source, 1)]
            if order[0] in running:
                _, running = ray.wait(running, num_returns=1, fetch_local=False)
            else:
                yield ray.get(order.popleft())
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, Img2PromptError):
            raise Img2PromptError(
                f"{cause} (as a machine of the Ray cluster sees it; all must see the same files under "
                "the same paths)"
            ) from None
        raise Img2PromptError(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error
    finally:
        for unfinished in running if ray.is_initialized() else ():
            ray.cancel(unfinished, force=True)


def _apply(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _require_answer(address: str | None) -> None:
    """Ask at the address whether anything listens there; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
