"""Calls on many items with several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

BLOCK = 4096


def map_in_order(call: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Call a function on every item with several threads, and give what it returns in the items' order.

    At most `BLOCK` calls are pending at a time: `ThreadPoolExecutor.map` would hold one for every item.
    """
    left = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        while block := list(islice(left, BLOCK)):
            yield from pool.map(call, block)
