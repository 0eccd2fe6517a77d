"""The watcher of a pass: told the plan before it, how it goes, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from img2prompt_cache.sources.base import Summary


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pass is going to do, shown before the first batch.

    Attributes
    ----------
    rows : int
        Rows the cache will have.
    fresh : int
        Rows that are new.
    work : int
        Rows to go through, in all parts that lack a column.
    columns : tuple of str
        Folders of the columns to be written.
    bytes : int
        Room the new parts take, estimated.
    summary : Summary
        Of the source.
    """

    rows: int
    fresh: int
    work: int
    columns: tuple[str, ...]
    bytes: int
    summary: Summary


@dataclass(frozen=True, slots=True)
class Report:
    """What a cache holds after a pass, and what the pass did.

    Attributes
    ----------
    rows, ok, failed : int
        Of the whole cache.
    fresh : int
        Rows this pass added.
    identical : int
        Rows whose image is byte for byte that of an earlier row.
    without_prompt : int
        Rows that have no prompt.
    reasons : dict of str to int
        Why images failed, most frequent first.
    missing : dict of str to int
        How many good images could not be read again, for each column that lacks any.
    seconds : float
        Wall time of the pass.
    stages : dict of str to float
        Seconds of work in each stage, summed over threads.
    """

    rows: int
    ok: int
    failed: int
    fresh: int
    identical: int
    without_prompt: int
    reasons: dict[str, int]
    missing: dict[str, int]
    seconds: float
    stages: dict[str, float]


class Watcher(Protocol):
    """Told how a pass goes."""

    def note(self, message: str) -> None:
        """Take a line worth saying."""

    def plan(self, plan: Plan) -> None:
        """Take the plan, before the first batch."""

    def advance(self, rows: int) -> None:
        """Take notice that `rows` more rows were done."""
