"""Schedules of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

SCHEDULES = ("none", "cosine", "plateau")
DROP = 0.3
"""What a plateau multiplies the rate by."""


@dataclass(slots=True)
class Schedule:
    """The schedule of one training, shared by all networks that are trained together.

    Attributes
    ----------
    span, kind, warmup
        As `epochs`, `schedule` and `warmup` of `factor`.
    drops : list of int
        Epochs after which the rate fell. A plateau that is looked for adds to it.
    patience : int, optional
        Look for a plateau: the rate falls when the score has not improved for more epochs than this.
    """

    span: int
    kind: str = "none"
    warmup: float = 0.0
    drops: list[int] = field(default_factory=list)
    patience: int | None = None

    def factor(self, position: float) -> float:
        """What the learning rate is multiplied by; see the function `factor`."""
        return factor(position, self.span, schedule=self.kind, warmup=self.warmup, drops=self.drops)

    def observe(self, epoch: int, best: int) -> None:
        """Take note that an epoch is done and which one is the best so far."""
        if self.patience is not None and flat(epoch, best, self.drops, self.patience):
            self.drops.append(epoch)


def factor(
    position: float, epochs: int, *, schedule: str = "none", warmup: float = 0.0, drops: Sequence[int] = ()
) -> float:
    """What the learning rate is multiplied by.

    Parameters
    ----------
    position : float
        Epochs done so far, with a fraction for the current one.
    epochs : int
        How many the schedule spans.
    schedule : str
        ``"none"``; ``"cosine"``, which falls to 0 as half a wave (Loshchilov and Hutter, "SGDR", 2017, eq. 5
        without restarts); ``"plateau"``, which falls to `DROP` of what it was after each epoch of `drops`.
    warmup : float
        The rate first rises linearly, over this many epochs, or, below 1, over this share of `epochs`.
    drops : sequence of int
        Epochs.

    Returns
    -------
    float
        In 0…1.
    """
    span = warmup if warmup >= 1 else warmup * epochs
    rising = min(1.0, position / span) if span else 1.0
    if schedule == "cosine":
        return rising * 0.5 * (1.0 + math.cos(math.pi * min(position / epochs, 1.0)))
    if schedule == "plateau":
        return rising * float(DROP ** sum(position >= drop for drop in drops))
    return rising


def flat(epoch: int, best: int, drops: Sequence[int], patience: int) -> bool:
    """Whether the validation score has not improved for more than `patience` epochs, and so the rate falls.

    Parameters
    ----------
    epoch, best : int
        The epoch that is done, and the best one so far.
    drops : sequence of int
        Epochs after which the rate fell before; each starts the count again.
    patience : int
    """
    return epoch - max(best, *drops, 0) > patience
