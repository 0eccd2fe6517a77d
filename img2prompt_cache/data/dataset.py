"""A dataset: the usable rows of a cache as arrays, with the features of all backbones side by side."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.manifest import Block, Column
from img2prompt_cache.cache.mapped import MappedViews
from img2prompt_cache.cache.reader import REMOVED, Cache
from img2prompt_cache.cache.texts import Texts
from img2prompt_cache.data.column_rows import ColumnRows
from img2prompt_cache.data.feature_blocks import BlockWidth, concatenate
from img2prompt_cache.data.further_prompts import further_texts, load_further
from img2prompt_cache.data.trunk_rows import TrunkRows
from img2prompt_cache.data.usable_rows import find_usable
from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.extra_pairs import ExtraPairs
    from img2prompt_cache.data.feature_blocks import AnyFeatures
    from img2prompt_cache.data.further_prompts import FurtherPrompts, TrainOn


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows of a cache with their features and, if they have prompts, their targets.

    Attributes
    ----------
    rows : numpy.ndarray, int64, shape (n,)
        Row numbers in the cache.
    ids, prompts, images : Texts
        imgId, prompt, and sha256 of the image's bytes, for each row: sequences of str.
    X : numpy.ndarray, float32, shape (n, p); or TrunkRows, shape (n, …); or FeatureBlocks; or ColumnRows
        Features of all backbones, concatenated; or the rows of a trunk column, which are read when they are
        used; or both. Features that are not held in memory are ColumnRows.
    y : numpy.ndarray, float32, shape (n, t); or ColumnRows
        Targets: embeddings of the first prompts, on which heads are scored; (n, 0) if no target was given.
    features : tuple of Column
        The feature columns, in the order of `X`.
    texts : numpy.ndarray, float32, shape (n, d), or ColumnRows, or None
        Embedding of each prompt by the text tower of a CLIP model, if it was given.
    extra : ExtraPairs or None
        Pairs of other caches that heads are also fitted on.
    bank : numpy.ndarray or None, float32, shape (m, t)
        Embeddings of further prompts, none of them near-identical to one of these rows.
    views : numpy.ndarray, float16, shape (n, v, p), or None
        Features of v augmented views of each image, concatenated like `X`; see `augmented_views.load_views`.
    target : Column or None
        The column of `y`.
    further : FurtherPrompts or None
        The other prompts of rows that have several; None if none has.
    means : numpy.ndarray or None, float32, shape (n, t)
        The mean of the embeddings of all prompts of each row, not scaled to length 1; None if no row has
        several.
    train_on : str
        ``"mean"`` to fit heads on the mean of all prompts of each row, ``"first"`` on the first alone.
    """

    rows: NDArray[np.int64]
    ids: Texts
    prompts: Texts
    images: Texts
    X: AnyFeatures
    y: NDArray[np.float32] | ColumnRows
    features: tuple[Column, ...]
    texts: NDArray[np.float32] | ColumnRows | None = None
    views: NDArray[np.float16] | None = None
    extra: ExtraPairs | None = None
    bank: NDArray[np.float32] | None = None
    target: Column | None = None
    further: FurtherPrompts | None = None
    means: NDArray[np.float32] | None = None
    train_on: TrainOn = "mean"

    def without_texts(self) -> Dataset:
        """Give the dataset without ids, prompts and images: no head is fitted on them."""
        return replace(self, ids=Texts.of(()), prompts=Texts.of(()), images=Texts.of(()))

    @property
    def training_targets(self) -> NDArray[np.float32] | ColumnRows:
        """What heads are fitted on, shape (n, t)."""
        return self.y if self.means is None or self.train_on == "first" else self.means

    @property
    def widths(self) -> tuple[BlockWidth, ...]:
        """Number of features of each block: a column is one, or has several."""
        return tuple(
            BlockWidth(block.width, standardise=block.standardise)
            for column in self.features
            for block in column.blocks or (Block("", math.prod(column.shape)),)
        )


def load_dataset(
    cache: Cache,
    features: tuple[Column, ...],
    target: Column | None = None,
    texts: Column | None = None,
    *,
    with_prompt: bool | None = True,
    only: Collection[str] | None = None,
    views: bool = False,
    train_on: TrainOn = "mean",
    hold: bool = True,
) -> Dataset:
    """Read the usable rows: those whose image could be read and whose features are all cached.

    Parameters
    ----------
    cache : Cache
    features, target
        Feature columns from `choose_features`, `choose_trunk` or `used_column`; target column from
        `choose_target`. Without a target, `y` is empty.
    texts : Column, optional
        Column of a text tower, from `choose_texts`.
    with_prompt : bool or None
        True for rows with a prompt, False for rows without one, None for both. A target or texts need True.
    only : collection of str, optional
        The imgIds of the rows to read; all usable rows, if absent.
    views : bool
        Also open the augmented views of a trunk, if any are cached, and leave out rows without them.
    train_on : str
        As in `Dataset`.
    hold : bool
        Whether features, targets and texts are held in memory. Otherwise they are read when they are used;
        but targets are held where a row has several prompts.

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
    trunk_views = {column.spec: views_of(cache, column) if views else None for column in features}
    read = [*features, *filter(None, trunk_views.values())]
    columns = [*read, *(column for column in (target, texts) if column)]
    cache.require_undamaged([cache.manifest.columns[0], *columns])
    usable = find_usable(cache, cache.missing(read), with_prompt, only)
    rows = usable.rows
    further = load_further(cache, target, rows) if target else None
    y: NDArray[np.float32] | ColumnRows = np.empty((len(rows), 0), np.float32)
    if target:
        y = _vectors(cache, target, rows, hold or further is not None)
    return Dataset(
        rows=rows,
        ids=usable.ids,
        prompts=usable.prompts,
        images=usable.images,
        X=_values(cache, features, rows, trunk_views, hold),
        y=y,
        features=features,
        texts=_vectors(cache, texts, rows, hold) if texts else None,
        target=target,
        further=further,
        means=None if further is None else further.means(np.asarray(y)),
        train_on=train_on,
    )


def load_prompts(cache: Cache, target: Column) -> tuple[list[str], NDArray[np.float32]]:
    """Read every distinct prompt of a cache with its embedding; not those of rows that were removed.

    Returns
    -------
    prompts : list of str, length m
        The first prompts of all rows, then the further ones that are none of these.
    vectors : numpy.ndarray, float32, shape (m, t)

    Raises
    ------
    Img2PromptError
        If a part is damaged, or a value is not finite.
    """
    cache.require_undamaged([cache.manifest.columns[0], target])
    first: dict[str, int] = {}
    text = cache.text("prompt", "status")
    there = np.array([status != REMOVED for status in text["status"]], bool)
    for row, prompt in enumerate(text["prompt"]):
        if prompt.strip() and there[row]:
            first.setdefault(prompt, row)
    vectors = _finite(cache, target, np.array(list(first.values()), np.int64))
    texts, further = further_texts(cache, target, np.flatnonzero(there))
    new = {text: at for at, text in reversed([*enumerate(texts)]) if text not in first}
    at = sorted(new.values())
    return [*first, *(texts[each] for each in at)], np.concatenate([vectors, further[at]])


def views_of(cache: Cache, trunk: Column) -> Column | None:
    """Find the views of a trunk that are cached for every row, the column with the most; None if none are."""
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
    cache: Cache,
    features: tuple[Column, ...],
    rows: NDArray[np.int64],
    views: dict[str, Column | None],
    hold: bool,
) -> AnyFeatures:
    if any(column.kind == "trunk" for column in features):
        return concatenate(
            [
                _trunk_rows(cache, column, rows, views[column.spec])
                if column.kind == "trunk"
                else _finite(cache, column, rows)
                for column in features
            ]
        )
    if not hold:
        return ColumnRows([cache.mapped(column) for column in features], rows)
    X = np.empty((len(rows), sum(column.shape[0] for column in features)), np.float32)
    left = 0
    for column in features:
        X[:, left : left + column.shape[0]] = _finite(cache, column, rows)
        left += column.shape[0]
    return X


def _trunk_rows(cache: Cache, trunk: Column, rows: NDArray[np.int64], views: Column | None) -> TrunkRows:
    return TrunkRows(cache.mapped(trunk), rows, MappedViews(cache.folder, views) if views else None)


def _vectors(
    cache: Cache, column: Column, rows: NDArray[np.int64], hold: bool
) -> NDArray[np.float32] | ColumnRows:
    return _finite(cache, column, rows) if hold else ColumnRows([cache.mapped(column)], rows)


def _finite(cache: Cache, column: Column, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    values = cache.values(column, rows)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise Img2PromptError(
            f"{column.folder} holds NaN or infinity in {int(bad.sum())} usable rows, first in row "
            f"{int(rows[bad][0])}; `verify()` tells whether a part was changed"
        )
    return values
