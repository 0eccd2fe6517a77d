"""A dataset: the usable rows of a cache as arrays, features joined."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.cache.manifest import Column, Kind
from img2prompt_cache.cache.mapped import MappedViews
from img2prompt_cache.cache.reader import OK, Cache
from img2prompt_cache.data.feature_blocks import join
from img2prompt_cache.data.trunk_rows import TrunkRows
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.backbones.taps import Described, Tap, blocks_of, split_spec
from img2prompt_cache.models.fingerprints import require_equal

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows of a cache with joined features, and targets where they have a prompt.

    Attributes
    ----------
    rows : numpy.ndarray, int64, shape (n,)
        Their numbers in the cache.
    ids, prompts, images : list of str
        imgId, prompt, and sha256 of the image's bytes, for each row.
    X : numpy.ndarray, float32, shape (n, p); or TrunkRows, shape (n, …); or Joined
        Joined features; of a trunk column its rows, which are read when they are asked for; or both side by
        side.
    y : numpy.ndarray, float32, shape (n, t)
        Targets; (n, 0) where none were asked for.
    features : tuple of Column
        In the order they are joined.
    texts : numpy.ndarray or None, float32, shape (n, d)
        The text tower's embedding of each prompt, where it was asked for.
    views : numpy.ndarray, float16, shape (n, v, p), or None
        Features of augmented views, joined alike; from `viewed.load_views`, where a head asks for them.
    """

    rows: NDArray[np.int64]
    ids: list[str]
    prompts: list[str]
    images: list[str]
    X: Any
    y: NDArray[np.float32]
    features: tuple[Column, ...]
    texts: NDArray[np.float32] | None = None
    views: NDArray[np.float16] | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """Widths of the joined backbones."""
        return tuple(math.prod(column.shape) for column in self.features)


def choose_features(cache: Cache, specs: tuple[str, ...]) -> tuple[Column, ...]:
    """Find feature columns: those named, or every one there is.

    Raises
    ------
    UsageError
        If one is not cached, or not complete, or named twice.
    """
    names = specs or tuple(column.spec for column in cache.manifest.of_kind("features"))
    if not names:
        raise UsageError(f"{cache.folder} has no features; run `img2prompt-cache extract`")
    if len(set(names)) < len(names):
        raise UsageError(f"--features names a backbone twice: {', '.join(names)}")
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
        raise UsageError(f"finetune trains one backbone; name one with --features: {', '.join(names)}")
    extract = f"`img2prompt-cache extract --cache {cache.folder}"
    if not names:
        raise UsageError(f"{cache.folder} has no trunk column; run {extract} --trunk {blocks or 'K'}`")
    spec, tap = split_spec(names[0])
    if not blocks_of(tap.name):
        spec = cache.column("features", names[0]).spec
    found = [column for column in trunks if names[0] in (column.spec, split_spec(column.spec)[0])]
    if not found:
        others = f"; there is one of {', '.join(cached)}" if cached else ""
        raise UsageError(
            f"no trunk of {names[0]} is cached{others}; run {extract} --backbone {spec} "
            f"--trunk {blocks or blocks_of(tap.name) or 'K'}`"
        )
    enough = [column for column in found if _behind(column) >= (blocks or 1)]
    if not enough:
        raise UsageError(
            f"--blocks {blocks}: the trunk of {spec} is cached before its last "
            f"{max(map(_behind, found))} blocks; run {extract} --backbone {spec} --trunk {blocks}`"
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
            "to compare images with prompts takes one open_clip backbone, named with --features; "
            f"{cache.folder} has {', '.join(column.spec for column in towers) or 'none'}"
        )
    if cache.manifest.column("targets", names[0]) is None:
        raise UsageError(
            f"{cache.folder} has no text embeddings of {names[0]}; run `img2prompt-cache extract SOURCE "
            f"--cache {cache.folder} --encoder {names[0]}` with the source it was made from"
        )
    return choose_features(cache, (names[0],)), cache.column("targets", names[0])


def _is_tower(column: Column) -> bool:
    return column.spec.startswith("open_clip:")


def load_dataset(
    cache: Cache,
    features: tuple[Column, ...],
    target: Column | None = None,
    texts: Column | None = None,
    *,
    with_prompt: bool | None = True,
    only: Collection[str] | None = None,
    views: bool = False,
) -> Dataset:
    """Read the usable rows: good image, every feature there.

    Parameters
    ----------
    cache : Cache
    features, target
        From `choose_features`, `choose_trunk` or `used_column`; and from `choose_target`. Without a target,
        `y` is empty.
    texts : Column, optional
        From `choose_texts`.
    with_prompt : bool or None
        True for the rows that have a prompt, False for those that have none, None for all. A target or texts
        need True.
    only : collection of str, optional
        The imgIds to take, and no others.
    views : bool
        Open the augmented views of a trunk, where it has some, and take only the rows that have them.

    Returns
    -------
    Dataset

    Raises
    ------
    UsageError
        If no row is usable, or the cache lacks an imgId of `only`.
    Img2PromptError
        If a part is damaged, or a value is not finite.
    """
    seen = {column.spec: _views_of(cache, column) if views else None for column in features}
    read = [*features, *filter(None, seen.values())]
    columns = [*read, *(column for column in (target, texts) if column)]
    cache.require_undamaged([cache.manifest.columns[0], *columns])
    text = cache.text("imgId", "prompt", "sha256", "status")
    missing = cache.missing(read)
    usable = [
        row
        for row, (status, prompt) in enumerate(zip(text["status"], text["prompt"], strict=True))
        if status == OK
        and row not in missing
        and (with_prompt is None or bool(prompt.strip()) == with_prompt)
    ]
    if only is not None:
        usable = _named(cache, usable, text["imgId"], only)
    if not usable:
        what = {
            True: " with a prompt; extract images with their prompts into a cache of their own",
            False: " without a prompt",
            None: "",
        }[with_prompt]
        raise UsageError(f"{cache.folder} has no usable image{what}")
    rows = np.array(usable, np.int64)
    return Dataset(
        rows=rows,
        ids=[text["imgId"][row] for row in usable],
        prompts=[text["prompt"][row] for row in usable],
        images=[text["sha256"][row] for row in usable],
        X=_values(cache, features, rows, seen),
        y=_finite(cache, target, rows) if target else np.empty((len(rows), 0), np.float32),
        features=features,
        texts=_finite(cache, texts, rows) if texts else None,
    )


def _named(cache: Cache, rows: list[int], ids: list[str], only: Collection[str]) -> list[int]:
    """Take those of `rows` whose imgId is named."""
    wanted = {*only}
    strangers = sorted(wanted - {*ids})
    if strangers:
        raise UsageError(
            f"--only names {len(strangers)} imgIds that {cache.folder} does not have, first {strangers[0]!r}"
        )
    found = [row for row in rows if ids[row] in wanted]
    if not found:
        raise UsageError(f"--only names no usable row of {cache.folder}")
    return found


def load_prompts(cache: Cache, target: Column) -> tuple[list[str], NDArray[np.float32]]:
    """Read every distinct prompt of a cache with its embedding.

    Returns
    -------
    prompts : list of str, length m
    vectors : numpy.ndarray, float32, shape (m, t)

    Raises
    ------
    Img2PromptError
        If a part is damaged, or a value is not finite.
    """
    cache.require_undamaged([cache.manifest.columns[0], target])
    first: dict[str, int] = {}
    for row, prompt in enumerate(cache.text("prompt")["prompt"]):
        if prompt.strip():
            first.setdefault(prompt, row)
    return list(first), _finite(cache, target, np.array(list(first.values()), np.int64))


def _behind(trunk: Column) -> int:
    """How many blocks lie behind the cut of a trunk column."""
    return blocks_of(split_spec(trunk.spec)[1].name)


def _views_of(cache: Cache, trunk: Column) -> Column | None:
    """Find the most views of a trunk column that are cached for every row; None for other columns."""
    if trunk.kind != "trunk":
        return None
    found = [
        column
        for column in cache.manifest.of_kind("views")
        if column.rows == cache.rows
        and {key: value for key, value in column.fingerprint.items() if key != "views"} == trunk.fingerprint
    ]
    return max(found, key=lambda column: (column.shape[0], column.spec), default=None)


def _values(
    cache: Cache, features: tuple[Column, ...], rows: NDArray[np.int64], views: dict[str, Column | None]
) -> Any:
    if any(column.kind == "trunk" for column in features):
        return join(
            [
                _trunk_rows(cache, column, rows, views[column.spec])
                if column.kind == "trunk"
                else _finite(cache, column, rows)
                for column in features
            ]
        )
    X = np.empty((len(rows), sum(column.shape[0] for column in features)), np.float32)
    left = 0
    for column in features:
        X[:, left : left + column.shape[0]] = _finite(cache, column, rows)
        left += column.shape[0]
    return X


def _trunk_rows(cache: Cache, trunk: Column, rows: NDArray[np.int64], views: Column | None) -> TrunkRows:
    return TrunkRows(cache.mapped(trunk), rows, MappedViews(cache.folder, views) if views else None)


def _finite(cache: Cache, column: Column, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    values = cache.values(column, rows)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise Img2PromptError(
            f"{column.folder} holds NaN or infinity in {int(bad.sum())} usable rows, first in row "
            f"{int(rows[bad][0])}; `img2prompt-cache verify` tells whether a part was changed"
        )
    return values
