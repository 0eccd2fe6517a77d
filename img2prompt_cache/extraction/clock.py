"""The clock: where the time of a pass goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Clock:
    """Seconds of work in each stage of a pass, summed over lanes."""

    seconds: dict[str, float] = field(default_factory=dict)

    def charge(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def add(self, other: Clock) -> None:
        """Add the seconds of another clock."""
        for stage, seconds in other.seconds.items():
            self.charge(stage, seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Charge a stage with the time its block takes."""
        started = time.perf_counter()
        yield
        self.charge(stage, time.perf_counter() - started)
