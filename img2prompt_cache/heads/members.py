"""The members of a blend: the features that each takes, and a name for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from img2prompt_cache.data.feature_blocks import consecutive_ranges
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from img2prompt_cache.heads.base import Head


def member_columns(
    members: Sequence[Mapping[str, Any]], widths: tuple[int, ...]
) -> list[list[tuple[int, int]]]:
    """Find the ranges of features that each member takes: all blocks, where it does not say.

    Raises
    ------
    UsageError
        If a member's `columns` are not among the features.
    """
    everything = consecutive_ranges(widths)
    found = [[(start, stop) for start, stop in m.get("columns", everything)] for m in members]
    for ranges in found:
        whole = all(isinstance(edge, int) for each in ranges for edge in each)
        if not (ranges and whole and all(0 <= start < stop <= sum(widths) for start, stop in ranges)):
            raise UsageError(
                f"a member of the blend takes columns {ranges}, but there are {sum(widths)} features"
            )
    return found


def named_apart(heads: Sequence[Head]) -> list[tuple[str, Head]]:
    """Name heads apart: ``mlp``, and ``mlp 2`` for the second of that name."""
    names = [head.name for head in heads]
    counts = [names[: at + 1].count(name) for at, name in enumerate(names)]
    return [
        (name if count == 1 else f"{name} {count}", head)
        for name, count, head in zip(names, counts, heads, strict=True)
    ]
