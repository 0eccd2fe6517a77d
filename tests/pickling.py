"""Workers of this process that get everything pickled, as those of a cluster do."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

cloudpickle = pytest.importorskip("cloudpickle", reason="comes with joblib 1.6")


class Pickling:
    """Workers that do the last item first.

    Attributes
    ----------
    counts : list of int
        How many items each call had.
    """

    def __init__(self) -> None:
        self.counts: list[int] = []

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Compute a function of each item; give the results in the order of the items."""
        left = [pickle.dumps(item) for item in items]
        self.counts.append(len(left))
        sent = cloudpickle.dumps(function)
        done = [pickle.dumps(pickle.loads(sent)(pickle.loads(item))) for item in reversed(left)]
        return map(pickle.loads, reversed(done))
