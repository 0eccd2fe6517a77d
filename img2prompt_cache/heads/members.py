"""The members of a blend: the features that each takes, and a name for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.data.feature_blocks import consecutive_ranges
from img2prompt_cache.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.heads.base import Head


ROUNDING = 1e-12
"""How far from 1 the sum of weights is at most that were scaled to it."""


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


def scaled_weights(given: Sequence[float], count: int) -> NDArray[np.float64]:
    """Check the weights of members, and scale them to a sum of 1.

    Raises
    ------
    UsageError
        If there is not one for each member, or they are no weights.
    """
    weights = np.asarray(given, np.float64)
    if weights.shape != (count,) or not are_weights(weights):
        raise UsageError(
            f"setting 'weights' of head 'blend' must be {count} finite numbers, one for each member, at "
            f"least 0 and not all 0, not {list(given)}",
            parameter="weights",
        )
    total = float(weights.sum())
    # Weights that a blend chose sum to 1 up to rounding: given again, they must stay what they are.
    scaled: NDArray[np.float64] = weights if abs(total - 1.0) < ROUNDING else weights / total
    return scaled


def are_weights(weights: NDArray[Any]) -> bool:
    """Whether numbers are finite, at least 0 and not all 0."""
    return bool(np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0)
