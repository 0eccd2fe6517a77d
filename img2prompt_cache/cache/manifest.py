"""The manifest: what a cache holds, as `cache.json` records it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from img2prompt_cache.errors import UsageError

SCHEMA = 2
"""Of the manifest. Manifests of schema 1 are read, and written again as schema 2."""
PART_SCHEMA = 2
"""Of new parts. Those of schema 1 do not say inside what they are."""

MANY_PARTS = 256
"""Parts of a column, from which on they are made larger or joined: HDF5 opens all of them to read `cache.h5`,
and what it may not open it shows as empty, without an error. Many systems let a program open 1,024 files.
"""
MOST_PART_ROWS = 1 << 24

VIEW = "cache.h5"
"""The virtual view over all parts, in the cache's folder."""

ROW_COLUMNS = ("imgId", "uri", "prompt", "sha256", "status", "reason")
"""Texts that every cache keeps for each row."""

Kind = Literal["rows", "features", "trunk", "views", "targets", "more_targets"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXTRA_NAME = re.compile(r"\w[\w .-]{0,63}")
"""Names under which columns of the user's own table are kept."""

_REVISION = re.compile(r"-r([1-9][0-9]{0,8})\.h5$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """One part as the manifest records it.

    Attributes
    ----------
    file : str
        Path inside the cache folder.
    start, stop : int
        Its rows.
    bytes : int
        Size of the file.
    sha256 : str
        Of the file's bytes, 64 hex digits.
    missing : tuple of int
        Rows whose image was good when it was first cached but could not be read again for this column.
    source : int
        For parts of `rows`: which of the manifest's sources they came from.
    retried : tuple of tuple of int
        Rows that failed at first and were filled in later, one group for each time: what is encoded together
        decides the last bit of a value, so computing the part again goes through the same groups.
    schema : int
        2 if the file says inside what it is; 1 for parts of version 0.1.
    joins : tuple of int
        Where it was joined of smaller parts: the first rows of all of these but the first. Batches end there.
    replaced : tuple of int
        Rows whose image was a good one before another one took its place; those that are good now are in a
        group of `retried`, too.
    """

    file: str
    start: int
    stop: int
    bytes: int
    sha256: str
    missing: tuple[int, ...] = ()
    source: int = 0
    retried: tuple[tuple[int, ...], ...] = ()
    schema: int = 1
    joins: tuple[int, ...] = ()
    replaced: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a feature column: features that belong together, such as one level of a backbone.

    Attributes
    ----------
    name : str
        What it is, as people read it: ``"layer4 mean+max"``.
    width : int
        How many features it has.
    standardise : bool
        Whether heads that standardise features do so with each feature of it, or with the block as a whole,
        because the features' relative scales mean something.
    """

    name: str
    width: int
    standardise: bool = True


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the manifest records it.

    Attributes
    ----------
    kind : str
        ``"rows"``, ``"features"``, ``"trunk"``, ``"views"``, ``"targets"`` or ``"more_targets"``. Targets are
        embeddings of the first prompt of each row; the others, of the rows that have some, are a column
        ``"more_targets"`` of the same spec.
    spec : str
        The backbone, with a suffix where not its pooled feature is kept (see `backbones.taps`), or the
        encoder; empty for `rows`.
    folder : str
        Where its parts lie, inside the cache folder.
    shape : tuple of int
        Of one row's value; empty for `rows`. The views or the further prompts of a row are its first axis,
        channels the last.
    dtype : str
        ``"float16"`` and the like; ``"text"`` for `rows`. Beside int8 values lies their scale.
    fingerprint : dict of str to str
        What the values depend on.
    revision : str
        The commit that weights from a hub were resolved to; they are asked for at it ever after.
    parts : tuple of Part
        Without gaps, in order.
    cache : str
        Identifier of the cache that it is a column of, which its parts carry: 32 hex digits of the digest of
        what the cache was first made from. The same input gives the same cache, and so the same identifier.
        Empty for a cache of version 0.1 that no pass has gone over since.
    blocks : tuple of Block
        What a feature column consists of, in order; empty where all of it is one block.
    current : str
        The spec that its model is loaded by now, with the same suffix, where `spec` is an alias, or says
        where the weights lay before; empty where it is `spec`.
    for_grouping : bool
        Of targets: whether the column was added to compare prompts by it, and not asked for. Nothing predicts
        it unless it is named.
    """

    kind: Kind
    spec: str
    folder: str
    shape: tuple[int, ...]
    dtype: str
    fingerprint: dict[str, str]
    revision: str = ""
    parts: tuple[Part, ...] = ()
    cache: str = ""
    blocks: tuple[Block, ...] = ()
    current: str = ""
    for_grouping: bool = False

    @property
    def rows(self) -> int:
        """Rows cached so far."""
        return self.parts[-1].stop if self.parts else 0

    @property
    def from_prompts(self) -> bool:
        """Whether its values are computed from prompts, and not from images."""
        return self.kind in ("targets", "more_targets")

    @property
    def datasets(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Numeric datasets of its parts: name to shape of one row and dtype."""
        if self.dtype == "text":
            return {}
        found = {"values": (self.shape, self.dtype)}
        if self.dtype == "int8":
            views = self.shape[:1] if self.kind == "views" else ()
            found["scale"] = ((*views, self.shape[-1]), "float16")
        return found

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything `cache.json` says. Immutable: a change is a new manifest, saved as a whole.

    Attributes
    ----------
    part_rows : int
        Rows of a full part; more in a cache that would have more than `MANY_PARTS` of them.
    batch_size : int
        Rows encoded together. Kept, because a resumed pass equals an uninterrupted one only with the same.
    columns : tuple of Column
        `rows` first.
    sources : tuple of dict
        ``{"root": path, **settings}`` of every source rows came from.
    preset : dict or None
        ``{"name", "reason"}`` as decided when the cache was made.
    extra : tuple of str
        Columns of the user's own table that the rows keep.
    updates : tuple of dict
        ``{"at", "changed"}`` of every time that images or prompts of cached rows were replaced or removed. A
        run records how many there were, so that it is known whether it was fitted on other contents.
    """

    part_rows: int
    batch_size: int
    columns: tuple[Column, ...]
    sources: tuple[dict[str, str], ...] = ()
    preset: dict[str, str] | None = None
    extra: tuple[str, ...] = ()
    updates: tuple[dict[str, str], ...] = ()
    schema: int = SCHEMA

    @property
    def rows(self) -> int:
        """Rows of the cache."""
        return self.columns[0].rows

    @property
    def row_datasets(self) -> dict[str, str]:
        """Text columns of the rows, `ROW_COLUMNS` and the user's own, and the dataset that keeps each."""
        return {name: row_dataset(name) for name in (*ROW_COLUMNS, *self.extra)}

    def identified(self, cache: str) -> Manifest:
        """Give an identifier to a cache that has none."""
        if self.columns[0].cache:
            return self
        return replace(self, columns=tuple(replace(column, cache=cache) for column in self.columns))

    def column(self, kind: Kind, spec: str = "") -> Column | None:
        """Find a column by its spec, else by the one that its model is loaded by now."""
        known = [c for c in self.columns if c.kind == kind and spec in (c.spec, c.current or c.spec)]
        return min(known, key=lambda c: c.spec != spec, default=None)

    def of_kind(self, kind: Kind) -> tuple[Column, ...]:
        """All columns of a kind, in the order they were added."""
        return tuple(c for c in self.columns if c.kind == kind)

    def with_column(self, column: Column) -> Manifest:
        """Add a column, or put it in the place of the one of its kind and spec."""
        column = replace(column, cache=self.columns[0].cache)
        if not any((c.kind, c.spec) == (column.kind, column.spec) for c in self.columns):
            if any(c.folder == column.folder for c in self.columns):
                raise UsageError(f"{column.spec} would share the folder {column.folder} with another spec")
            return replace(self, columns=(*self.columns, column))
        same = (column.kind, column.spec)
        return replace(self, columns=tuple(column if (c.kind, c.spec) == same else c for c in self.columns))


def column_folder(kind: Kind, spec: str) -> str:
    """Say where the parts of a column lie inside the cache folder: ``features/timm-resnet50.a1_in1k``."""
    return f"{kind}/{folder_name(spec)}" if spec else kind


def row_dataset(name: str) -> str:
    """Name the dataset of a text column of the rows: ``prompt``; ``extra.artist`` for a user's column."""
    return name if name in ROW_COLUMNS else f"extra.{name}"


def part_file(folder: str, number: int, revision: int = 0) -> str:
    """Name a part's file inside the cache folder: ``rows/00007.h5``; ``rows/00007-r1.h5`` once revised."""
    return f"{folder}/{number:05d}{f'-r{revision}' if revision else ''}.h5"


def revision_of(file: str) -> int:
    """Tell from a part's name how many times it was revised."""
    found = _REVISION.search(file)
    return int(found[1]) if found else 0


def folder_name(spec: str) -> str:
    """Turn a spec into the name of its folder: letters, digits, ``._-`` only, never hidden, ≤ 120 long.

    The end of a longer name gives way to a digest, so that long paths with the same beginning differ.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", spec).strip(".-")
    return name if len(name) <= 120 else f"{name[:111]}-{hashlib.sha256(spec.encode()).hexdigest()[:8]}"
