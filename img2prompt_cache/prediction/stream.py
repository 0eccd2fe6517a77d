"""Streams of predictions: a fitted head on the images of a source, batch by batch, or on rows of a cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from img2prompt_cache.cache.quantise import quantise, restore
from img2prompt_cache.cache.reader import REMOVED, Cache
from img2prompt_cache.data.columns import OUTSIDE, UsedColumn, used_column
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.feature_blocks import FeatureBlocks, concatenate
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.extraction.encode import encode_batches
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.models.backbones.taps import split_spec
from img2prompt_cache.models.recorded import load_recorded_backbone, require_backbone
from img2prompt_cache.models.runtimes import choose_runtime
from img2prompt_cache.models.weights.places import active, looking_in
from img2prompt_cache.numerics import workers
from img2prompt_cache.prediction.expectation import Expectation, predict_expected
from img2prompt_cache.prediction.outside import OutsideColumns, of_images
from img2prompt_cache.prediction.own_prompts import OwnPrompts
from img2prompt_cache.prediction.predictions import Predictions
from img2prompt_cache.progress import Callback, ignore, note
from img2prompt_cache.sources import list_images

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from img2prompt_cache.extraction.encode import Image
    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.runtimes import Runtime
    from img2prompt_cache.sources.base import Source

BATCH_SIZE = 32
SLICE_ROWS = 512


_Predicted: TypeAlias = "tuple[NDArray[np.float32], float | None]"
_Batch: TypeAlias = "tuple[Predictions, list[str]]"  # and the SHA-256 of each image

Loaded: TypeAlias = "dict[tuple[str, str, str, Runtime], Backbone]"
"""Backbones that are loaded, by spec, precision, revision and runtime."""


def load_backbones(
    features: Sequence[UsedColumn],
    device: str = "auto",
    loaded: Loaded | None = None,
    *,
    runtime: str = "auto",
    tell: Callback = ignore,
) -> dict[str, Backbone]:
    """Load the backbones that some columns were made with, and no others, as they were then.

    Parameters
    ----------
    features : sequence of UsedColumn
    device : str
        ``"auto"`` or as torch spells it.
    loaded : dict, optional
        Backbones that are loaded already, which are not loaded again; those that are loaded now are added.
    runtime : str
        See `runtimes.choose_runtime`.
    tell : callable
        Told where torch computes in OpenVINO's place.

    Returns
    -------
    dict of str to Backbone
        By spec of the column, in their order; columns of one backbone share it.

    Raises
    ------
    Img2PromptError
        If a backbone is not the same any more; the message names what differs.
    """
    loaded = {} if loaded is None else loaded
    backbones = {}
    for column in features:
        if column.spec.startswith(OUTSIDE):
            raise UsageError(
                f"{column.spec.removeprefix(OUTSIDE)} is a member of the blend that another program fitted: "
                "only its predictions are known, for the images of its file and no others"
            )
        spec = split_spec(column.spec)[0]
        computes = choose_runtime(column, runtime, device, tell)
        key = (spec, column.fingerprint.get("precision", "fp32"), column.revision, computes)
        if key not in loaded:
            try:
                loaded[key] = load_recorded_backbone(column, device=device, runtime=computes)
            except Img2PromptError as error:
                if runtime != "auto" or computes == "torch":
                    raise
                # Such as a processor without bfloat16; what else is wrong is told once more.
                loaded[key] = load_recorded_backbone(column, device=device, runtime="torch")
                note(tell, f"{error}. So torch computes it")
        else:
            require_backbone(column, loaded[key], as_recorded=("runtime",))
        backbones[column.spec] = loaded[key]
    return backbones


def predict_images(
    head: Head,
    backbones: dict[str, Backbone],
    source: Source,
    table: pa.Table,
    *,
    batch_size: int | None = None,
    expectation: Expectation | None = None,
    own_prompts: OwnPrompts | None = None,
    outside: OutsideColumns | None = None,
) -> Iterator[Predictions]:
    """Predict for the images of a source, batch by batch, in the order of its listing.

    Parameters
    ----------
    head : Head
        Fitted.
    backbones : dict of str to Backbone
        From `load_backbones`.
    source : Source
        Gives the images' bytes.
    table : pyarrow.Table
        Its listing, or some rows of it.
    batch_size : int, optional
        Images of a batch; 32 if absent. Several batches are worked on side by side.
    expectation : Expectation, optional
        Of the predictions of `head`.
    own_prompts : OwnPrompts, optional
        Where images are looked up that are in a cache already; see `Predictions.own_prompts`.
    outside : OutsideColumns, optional
        Predictions of another program, which a blend takes beside the features.

    Yields
    ------
    Predictions
        Nothing of a batch is held once the next one is asked for.
    """

    def predicted(rows: Slice) -> Iterator[_Batch]:
        return _predict_slice(head, backbones, source, rows, batch_size or BATCH_SIZE, expectation, outside)

    return _with_own_prompts(map(predicted, _slices(table)), own_prompts)


def predict_shared(
    head: Head,
    features: Sequence[UsedColumn],
    source: Source,
    table: pa.Table,
    *,
    device: str = "auto",
    runtime: str = "auto",
    expectation: Expectation | None = None,
    own_prompts: OwnPrompts | None = None,
    outside: OutsideColumns | None = None,
) -> Iterator[Predictions]:
    """Predict as `predict_images` does, slice by slice, by workers that load the backbones themselves.

    Parameters
    ----------
    features : sequence of UsedColumn
        What the head was fitted on.
    device : str
        For the backbones, as a worker names it.
    runtime : str
        For the backbones.
    head, source, table, expectation, own_prompts, outside
        As for `predict_images`.

    Yields
    ------
    Predictions
    """
    places = active()

    def predicted(rows: Slice) -> list[_Batch]:
        with looking_in(places):
            backbones = _kept_backbones(of_images(features), device, runtime)
        return [*_predict_slice(head, backbones, source, rows, BATCH_SIZE, expectation, outside)]

    return _with_own_prompts(workers.share(predicted, _slices(table)), own_prompts)


def _kept_backbones(features: Sequence[UsedColumn], device: str, runtime: str) -> dict[str, Backbone]:
    """Load the backbones of some columns; a worker keeps them for the slices to come."""
    return load_backbones(features, device, _KEPT, runtime=runtime)


_KEPT: Loaded = {}


def _slices(table: pa.Table) -> Iterator[Slice]:
    for start in range(0, len(table), SLICE_ROWS):
        piece = table.slice(start, SLICE_ROWS)
        yield Slice(0, start, {"imgId": piece["imgId"].to_pylist(), "uri": piece["uri"].to_pylist()})


def _with_own_prompts(
    slices: Iterable[Iterable[_Batch]], own_prompts: OwnPrompts | None
) -> Iterator[Predictions]:
    """Add the prompts of pictures that are in a cache already, which is read here alone."""
    for predictions, digests in chain.from_iterable(slices):
        found = None if own_prompts is None else own_prompts.find(digests)
        yield replace(predictions, own_prompts=found)


def _predict_slice(
    head: Head,
    backbones: dict[str, Backbone],
    source: Source,
    rows: Slice,
    batch_size: int,
    expectation: Expectation | None,
    outside: OutsideColumns | None,
) -> Iterator[_Batch]:
    """Predict for the images of a slice, batch by batch."""
    ids = rows.text["imgId"]
    known: dict[int, _Predicted] = {}
    kept: dict[int, tuple[NDArray[np.float32], ...]] = {}
    for batch in encode_batches(rows, source, backbones, batch_size):
        if batch.fresh:
            values = [as_stored(batch.features[spec], spec) for spec in backbones]
            whole = np.all([np.isfinite(each).reshape(len(each), -1).all(1) for each in values], axis=0)
            at = [batch.first + batch.fresh[i] for i in np.flatnonzero(whole)]
            blocks = [each[whole] for each in values]
            if outside:
                kept.update(zip(at, zip(*blocks, strict=True), strict=True))
            elif at:
                known.update(_predicted(head, at, blocks, expectation))
        if outside:  # images of the same bytes have predictions of their own there
            pairs = {row: _original(image, row) for row, image in enumerate(batch.images, batch.first)}
            at = [row for row, original in pairs.items() if original in kept]
            if at:
                blocks = [np.stack(each) for each in zip(*(kept[pairs[row]] for row in at), strict=True)]
                blocks += outside.find([ids[row] for row in at])
                known.update(_predicted(head, at, blocks, expectation))
        found: dict[str, _Predicted] = {}
        bad: dict[str, str] = {}
        digests: list[str] = []
        for row, image in enumerate(batch.images, batch.first):
            prediction = known.get(row if outside else _original(image, row))
            if image.reason or prediction is None:
                bad[ids[row]] = image.reason or "its features are not finite, or too large for float16"
            else:
                found[ids[row]] = prediction
                digests.append(image.sha256)
        yield (
            Predictions(
                list(found),
                np.array([vector for vector, _ in found.values()], np.float32),
                bad,
                expected=None
                if expectation is None
                else np.array([expected for _, expected in found.values()], np.float32),
            ),
            digests,
        )


def _original(image: Image, row: int) -> int:
    """Give the row that was encoded for an image: its own, or that of an earlier one with the same bytes."""
    return image.duplicate_of if image.duplicate_of >= 0 else row


def _predicted(
    head: Head, rows: list[int], blocks: list[NDArray[np.float32]], expectation: Expectation | None
) -> Iterator[tuple[int, _Predicted]]:
    """Predict for rows with these blocks of features: each row with its vector and expected cosine."""
    vectors, expected = predict_expected(head, concatenate(blocks), expectation)
    told = [None] * len(rows) if expected is None else expected.tolist()
    return zip(rows, zip(vectors, told, strict=True), strict=True)


def as_stored(values: NDArray[Any], spec: str) -> NDArray[np.float32]:
    """Round values of a column as their column keeps them, in float16 or int8: what heads are fitted on."""
    with np.errstate(over="ignore", invalid="ignore"):  # its caller leaves out what is not finite
        kept = values.astype(np.float16, copy=False)
        coded = split_spec(spec)[1].dtype == "int8"
        return restore(*quantise(kept)) if coded else kept.astype(np.float32)


def encode_image(column: UsedColumn, path: Path, device: str = "auto") -> NDArray[np.float32]:
    """Encode an image file as the rows of a feature column were, shape (p,).

    Raises
    ------
    Img2PromptError
        If the image cannot be used, or the backbone is not the one that made the column.
    """
    source, listing = list_images([path])
    rows = Slice(0, 0, {name: listing.table[name].to_pylist()[:1] for name in ("imgId", "uri")})
    backbones = load_backbones((column,), device)
    (batch,) = encode_batches(rows, source, backbones, 1)
    if not batch.fresh:
        raise Img2PromptError(f"{path}: {batch.images[0].reason}")
    vector: NDArray[np.float32] = as_stored(batch.features[column.spec], column.spec)[0]
    return vector


def predict_cached(
    features: Sequence[UsedColumn],
    head: Head,
    cache: Cache,
    *,
    with_prompt: bool | None,
    expectation: Expectation | None = None,
) -> Predictions:
    """Predict for rows of a cache; no image is read.

    Parameters
    ----------
    features : sequence of UsedColumn
        What the head was fitted on.
    head : Head
        Fitted.
    cache : Cache
    with_prompt : bool or None
        True for rows that have a prompt, False for those that have none, None for all that were not removed.
    expectation : Expectation, optional
        Of the predictions of `head`.

    Raises
    ------
    UsageError
        If the cache lacks a column, or has no such row.
    Img2PromptError
        If a column was made differently from the one the run was fitted on.
    """
    columns = tuple(used_column(cache, use, _ADVICE) for use in of_images(features))
    try:
        data = load_dataset(cache, columns, with_prompt=with_prompt)
    except UsageError as error:
        raise UsageError(f"{error}; name images to predict for") from None
    text = cache.text("imgId", "prompt", "reason", "status")
    used = set(data.rows.tolist())
    bad = {
        name: reason or "it could not be read again when its features were cached"
        for row, (name, prompt, reason, status) in enumerate(zip(*text.values(), strict=True))
        if row not in used
        and status != REMOVED
        and (with_prompt is None or bool(prompt.strip()) == with_prompt)
    }
    X, outside = data.X, OutsideColumns(features, head)
    if outside:
        outside.require(data.ids)
        blocks = X.blocks if isinstance(X, FeatureBlocks) else [X]
        X = concatenate([*blocks, *outside.find(data.ids)])
    vectors, expected = predict_expected(head, X, expectation)
    return Predictions(list(data.ids), vectors, bad, expected=expected)


_ADVICE = "A run predicts only from features made as those it was fitted on: fit it again on this cache."
