"""Columns of a cache: choosing those that a head is fitted on, and describing them in a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

from img2prompt_cache.cache.manifest import Column, Kind
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.taps import Described, Tap, blocks_of, split_spec
from img2prompt_cache.models.fingerprints import digest, require_equal

OUTSIDE = "outside:"
"""How the spec of predictions by another program begins, which a blend has in the place of features."""


@dataclass(frozen=True, slots=True)
class UsedColumn:
    """A column on which a run was fitted: its spec, width, fingerprint, and the revision of the weights.

    `shape` is the shape of one row, and `width` the number of its values. `current` is the spec that its
    model was loaded by, if not `spec`.
    """

    spec: str
    width: int
    fingerprint: dict[str, str]
    revision: str = ""
    shape: tuple[int, ...] = ()
    current: str = field(default="", compare=False)

    @classmethod
    def of(cls, column: Column) -> Self:
        """Describe a column of a cache."""
        width = math.prod(column.shape)
        return cls(column.spec, width, column.fingerprint, column.revision, column.shape, column.current)


def choose_features(cache: Cache, specs: tuple[str, ...]) -> tuple[Column, ...]:
    """Find feature columns: those named, or all, if none are named.

    Of columns with one fingerprint, which earlier versions made of weights in two places, the first is one of
    all.

    Raises
    ------
    UsageError
        If a column is not cached, not complete, or named twice.
    """
    names = specs or feature_specs(cache)
    if not names:
        raise UsageError(f"{cache.folder} has no features; run `extract()`")
    columns = tuple(cache.column("features", name) for name in names)
    if len(set(map(_identity, columns))) < len(columns):
        raise UsageError(f"`features` names a backbone twice: {', '.join(names)}", parameter="features")
    return columns


def feature_specs(cache: Cache) -> tuple[str, ...]:
    """Name the feature columns of a cache, each once that has another fingerprint."""
    columns = cache.manifest.of_kind("features")
    distinct = {_identity(column): column.spec for column in reversed(columns)}
    return tuple(column.spec for column in columns if distinct[_identity(column)] == column.spec)


def _identity(column: Column) -> str:
    """Give what a column is known by: its fingerprint and what is kept; its spec, if it has none."""
    if not column.fingerprint:
        return column.spec
    return digest(column.fingerprint) + split_spec(column.spec)[1].suffix


def choose_trunk(cache: Cache, specs: tuple[str, ...], blocks: int | None = None) -> Column:
    """Find the trunk column for fine-tuning the last blocks of a backbone.

    A trunk column holds the input of the last blocks of a backbone, cut before the last k of them.

    Parameters
    ----------
    cache : Cache
    specs : tuple of str
        One backbone or one trunk column; if empty, the only backbone of which a trunk is cached.
    blocks : int, optional
        Number of blocks to train. Of the columns with at least so many blocks after the cut, the one with the
        fewest is chosen. If absent, the one with the most is.

    Raises
    ------
    UsageError
        If several backbones are named or cached, or there is no such column, or it is not complete.
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
    enough = [column for column in found if _trained_blocks(column) >= (blocks or 1)]
    if not enough:
        raise UsageError(
            f"`blocks={blocks}`: the trunk of {spec} is cached before its last "
            f'{max(map(_trained_blocks, found))} blocks; run {extract}, backbones="{spec}", trunk={blocks})`',
            parameter="blocks",
        )
    # Of two columns cut at the same block, the one stored in float16 sorts first by its spec.
    ranked = sorted(enough, key=lambda column: (_trained_blocks(column) * (1 if blocks else -1), column.spec))
    return cache.column("trunk", ranked[0].spec)


def choose_target(cache: Cache, spec: str | None) -> Column:
    """Find the target column: the one named; or the first, text towers of CLIP models coming last.

    A column that was only added to compare prompts by comes after all others.
    """
    targets = sorted(cache.manifest.of_kind("targets"), key=lambda c: (c.for_grouping, _is_tower(c)))
    if spec is None and targets:
        spec = targets[0].spec
    return cache.column("targets", spec or "")


def choose_texts(cache: Cache, specs: tuple[str, ...]) -> tuple[tuple[Column, ...], Column]:
    """Find the features of a CLIP model's image tower and the column of its text tower.

    The image tower is the one named in `specs`, or the only one that is cached.

    Raises
    ------
    UsageError
        If there is not exactly one image tower, or its text tower is not cached; the message says what to do.
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
    """Find the column from which something was made, and check that its fingerprint is still the same.

    Parameters
    ----------
    cache : Cache
    used : Described
        The recorded description of the column.
    advice : str
        For the error message: what to do if the column has changed.
    kind : str, optional
        Kind of the column; for a column of a backbone it follows from the spec.

    Raises
    ------
    UsageError
        If the column is not cached, or not complete.
    Img2PromptError
        If its fingerprint has changed; the message names what differs.
    """
    if used.spec.startswith(OUTSIDE):
        raise UsageError(
            f"{used.spec.removeprefix(OUTSIDE)} is a member of the blend that another program fitted: only "
            "its predictions are known, for the images of its file and no others"
        )
    kind = kind or split_spec(used.spec)[1].kind
    if cache.manifest.column(kind, used.spec) is None:
        for same in cache.manifest.of_kind(kind):
            if used.fingerprint and same.fingerprint == used.fingerprint:  # the same by another name
                return cache.column(kind, same.spec)
    column = cache.column(kind, used.spec)
    require_equal(f"column {column.folder}", used.fingerprint, column.fingerprint, advice)
    return column


def _is_tower(column: Column) -> bool:
    return (column.current or column.spec).startswith("open_clip:")


def _trained_blocks(trunk: Column) -> int:
    """Number of blocks after the cut of a trunk column."""
    return blocks_of(split_spec(trunk.spec)[1].name)
