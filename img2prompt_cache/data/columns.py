"""Columns: which ones of a cache a head is fitted on, and what is recorded of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from img2prompt_cache.cache.manifest import Column, Kind
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.taps import Described, Tap, blocks_of, split_spec
from img2prompt_cache.models.fingerprints import require_equal


@dataclass(frozen=True, slots=True)
class UsedColumn:
    """A column that a run was fitted on: its spec, width, fingerprint, and the revision of its weights.

    `shape` is that of one row; its product is the width.
    """

    spec: str
    width: int
    fingerprint: dict[str, str]
    revision: str = ""
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, column: Column) -> Self:
        """Describe a column of a cache."""
        return cls(column.spec, math.prod(column.shape), column.fingerprint, column.revision, column.shape)


def choose_features(cache: Cache, specs: tuple[str, ...]) -> tuple[Column, ...]:
    """Find feature columns: those named, or every one there is.

    Raises
    ------
    UsageError
        If one is not cached, or not complete, or named twice.
    """
    names = specs or tuple(column.spec for column in cache.manifest.of_kind("features"))
    if not names:
        raise UsageError(f"{cache.folder} has no features; run `extract()`")
    if len(set(names)) < len(names):
        raise UsageError(f"`features` names a backbone twice: {', '.join(names)}", parameter="features")
    return tuple(cache.column("features", name) for name in names)


def choose_trunk(cache: Cache, specs: tuple[str, ...], blocks: int | None = None) -> Column:
    """Find the trunk column to train the last blocks of a backbone from.

    Parameters
    ----------
    cache : Cache
    specs : tuple of str
        One backbone, or one trunk column; that of which a trunk is cached if empty.
    blocks : int, optional
        How many blocks are to be trained. The column with the fewest behind its cut that are enough is taken;
        that with the most if absent.

    Raises
    ------
    UsageError
        If there is not one backbone, or no such column of it, or it is not complete.
    """
    trunks = cache.manifest.of_kind("trunk")
    cached = list(dict.fromkeys(split_spec(column.spec)[0] for column in trunks))
    names = specs or tuple(cached)
    if len(names) > 1:
        raise UsageError(
            f"finetune trains one backbone; name one with `features`: {', '.join(names)}",
            parameter="features",
        )
    extract = f'`extract(cache="{cache.folder}"'
    if not names:
        raise UsageError(f"{cache.folder} has no trunk column; run {extract}, trunk={blocks or 'K'})`")
    spec, tap = split_spec(names[0])
    if not blocks_of(tap.name):
        spec = cache.column("features", names[0]).spec
    found = [column for column in trunks if names[0] in (column.spec, split_spec(column.spec)[0])]
    if not found:
        others = f"; there is one of {', '.join(cached)}" if cached else ""
        raise UsageError(
            f'no trunk of {names[0]} is cached{others}; run {extract}, backbones="{spec}", '
            f"trunk={blocks or blocks_of(tap.name) or 'K'})`"
        )
    enough = [column for column in found if _behind(column) >= (blocks or 1)]
    if not enough:
        raise UsageError(
            f"`blocks={blocks}`: the trunk of {spec} is cached before its last "
            f'{max(map(_behind, found))} blocks; run {extract}, backbones="{spec}", trunk={blocks})`',
            parameter="blocks",
        )
    # Of two cut at the same block the one stored in float16 comes first by its name.
    ranked = sorted(enough, key=lambda column: (_behind(column) * (1 if blocks else -1), column.spec))
    return cache.column("trunk", ranked[0].spec)


def choose_target(cache: Cache, spec: str | None) -> Column:
    """Find the target column: the one named, or the first, text towers last."""
    targets = sorted(cache.manifest.of_kind("targets"), key=_is_tower)
    if spec is None and targets:
        spec = targets[0].spec
    return cache.column("targets", spec or "")


def choose_texts(cache: Cache, specs: tuple[str, ...]) -> tuple[tuple[Column, ...], Column]:
    """Find the features of an image tower, the one named or the only one, and the column of its text tower.

    Raises
    ------
    UsageError
        If there is not one image tower, or nothing of its text tower; the message says how to get it.
    """
    towers = [
        c for c in cache.manifest.of_kind("features") if _is_tower(c) and split_spec(c.spec)[1] == Tap()
    ]
    names = list(specs) or [column.spec for column in towers]
    if len(names) != 1 or (specs and names[0] not in [column.spec for column in towers]):
        raise UsageError(
            "to compare images with prompts takes one open_clip backbone, named with `features`; "
            f"{cache.folder} has {', '.join(column.spec for column in towers) or 'none'}",
            parameter="features",
        )
    if cache.manifest.column("targets", names[0]) is None:
        raise UsageError(
            f"{cache.folder} has no text embeddings of {names[0]}; run `extract(source, "
            f'cache="{cache.folder}", encoder="{names[0]}")` with the source it was made from'
        )
    return choose_features(cache, (names[0],)), cache.column("targets", names[0])


def used_column(cache: Cache, used: Described, advice: str, kind: Kind | None = None) -> Column:
    """Find the column that something was made from, and check that it still is that column.

    Parameters
    ----------
    cache : Cache
    used : Described
        What is remembered of it.
    advice : str
        What to do where it is another.
    kind : str, optional
        Told by its spec if absent, for a column of a backbone.

    Raises
    ------
    UsageError
        If it is not cached, or not complete.
    Img2PromptError
        If it was made otherwise; the message names what differs.
    """
    column = cache.column(kind or split_spec(used.spec)[1].kind, used.spec)
    require_equal(f"column {column.folder}", used.fingerprint, column.fingerprint, advice)
    return column


def _is_tower(column: Column) -> bool:
    return column.spec.startswith("open_clip:")


def _behind(trunk: Column) -> int:
    """How many blocks lie behind the cut of a trunk column."""
    return blocks_of(split_spec(trunk.spec)[1].name)
