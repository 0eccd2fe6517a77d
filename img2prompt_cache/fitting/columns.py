"""The columns that a head is fitted on: those asked for, or those that it is made for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from img2prompt_cache.data.columns import choose_features, choose_texts, choose_trunk, feature_specs
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.taps import LEVELS, TOP, split_spec

if TYPE_CHECKING:
    from img2prompt_cache.cache.manifest import Column
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.heads.base import Head


def choose_columns(
    cache: Cache, head: Head, specs: tuple[str, ...]
) -> tuple[tuple[Column, ...], Column | None]:
    """Find the columns that a head is fitted on, and the embedded texts of the prompts, if it takes them.

    Raises
    ------
    UsageError
        As `choose_features`, `choose_trunk` or `choose_texts`.
    """
    if head.takes == "trunk":
        return (choose_trunk(cache, specs, head.get_params()["blocks"]),), None
    if head.texts:
        return choose_texts(cache, specs)
    return choose_features(cache, specs or preferred_features(cache, head) or _default(cache, head)), None


def _default(cache: Cache, head: Head) -> tuple[str, ...]:
    """Name the columns that a head takes where none are named: all, or those of pooled features."""
    specs = feature_specs(cache)
    if head.joins == "blocks":
        return specs
    taps = {spec: split_spec(spec)[1] for spec in specs}
    pooled = tuple(spec for spec in specs if not taps[spec].squash and taps[spec].name in (TOP, LEVELS))
    return pooled or specs


def preferred_features(cache: Cache, head: Head) -> tuple[str, ...]:
    """Name the backbone that a head is made for, or else the best one in its place.

    Returns
    -------
    tuple of str
        Its spec; empty for a head that takes every cached one.

    Raises
    ------
    UsageError
        If none of these is cached.
    """
    specs = [column.spec for column in cache.manifest.of_kind("features") if "#" not in column.spec]
    for pattern in head.prefers.values():
        for spec in specs:
            if re.search(pattern, spec, re.IGNORECASE):
                return (spec,)
    if head.prefers and specs:
        raise UsageError(
            f"head {head.name} takes {' or '.join(head.prefers)}, and none is cached; extract one, or name "
            f"another in its place with `features`: {', '.join(specs)}",
            parameter="features",
        )
    return ()


def stands_in(head: Head, spec: str) -> str:
    """Name the backbone that a head is made for, if it is not this one; else nothing."""
    wanted, pattern = next(iter(head.prefers.items()), ("", ""))
    return "" if re.search(pattern, spec, re.IGNORECASE) else wanted
