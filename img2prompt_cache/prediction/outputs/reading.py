"""Files of predictions, read back: those that `predict` writes, and those that other programs write alike."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from img2prompt_cache.errors import Img2PromptError, check
from img2prompt_cache.tables import bare_cell, preview

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Batch: TypeAlias = "tuple[list[str], NDArray[np.float32]]"

NO_ARRAY = (AttributeError, RecursionError, SyntaxError, TokenError)
"""What NumPy raises, besides `ValueError`, for a header that is none."""

MOST_ROWS = 10_000_000
BATCH = 1024
"""Rows read at a time, so that a small file cannot fill the memory before what is wrong with it is known."""


def read_predictions(
    path: Path, width: int, wanted: Collection[str] | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    """Read predictions with their names.

    Parameters
    ----------
    path : pathlib.Path
        ``.npy`` with ``.ids.csv`` beside it, ``.csv`` of Kaggle's form or with a column for each value behind
        ``imgId``, ``.parquet`` or ``.jsonl`` with ``imgId`` and ``embedding``.
    width : int
        Values of a prediction.
    wanted : collection of str, optional
        Names of the rows to keep; all if None.

    Returns
    -------
    ids : list of str
    vectors : numpy.ndarray, float32, shape (n, width)
        In the order of the file; of any length.

    Raises
    ------
    Img2PromptError
        If it is missing or cannot be read, a name stands twice, or a prediction has another width, is not
        finite, or is the zero vector. The message names the file and the row.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise Img2PromptError(f"{path}: predictions are read from {', '.join(READERS)}")
    keep = None if wanted is None else {*wanted}
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    try:
        for ids, vectors in read(path, width):
            check(
                vectors.shape == (len(ids), width),
                f"a prediction has {vectors.shape[-1]} values, not {width}",
            )
            at = [row for row, name in enumerate(ids) if keep is None or name in keep]
            names += [ids[row] for row in at]
            parts.append(vectors[at])
            check(len(names) <= MOST_ROWS, f"it has more than {MOST_ROWS:,} rows")
    except FileNotFoundError as error:
        raise Img2PromptError(f"{error.filename or path} is not there") from None
    except (OSError, ValueError, KeyError, TypeError, csv.Error, *NO_ARRAY) as error:
        raise Img2PromptError(f"{path} cannot be read as predictions: {_reason(error)}") from None
    found = np.concatenate(parts) if parts else np.empty((0, width), np.float32)
    _require_whole(path, names, found)
    return names, found


def _reason(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]


def _require_whole(path: Path, names: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """Check that every row stands once and points somewhere."""
    if len({*names}) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Img2PromptError(f"{path} has two predictions for {preview([twice], 1)}")
    for wrong, what in (
        (~np.isfinite(vectors).all(axis=1), "holds NaN or infinity"),
        (~vectors.any(axis=1), "is the zero vector"),
    ):
        if wrong.any():
            rows = np.flatnonzero(wrong).tolist()
            raise Img2PromptError(
                f"{path}: the prediction for {preview((names[row] for row in rows), len(rows))} {what}"
            )


def _read_npy(path: Path, width: int) -> Iterator[Batch]:
    values: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    check(values.ndim == 2 and values.dtype.kind == "f", f"it is {values.dtype} of shape {values.shape}")
    check(values.shape[1] == width, f"a prediction has {values.shape[1]} values, not {width}")
    beside = path.with_suffix(".ids.csv")
    check(
        beside.is_file(),
        f"the names of its rows are not beside it; write {beside.name} with the columns row and imgId",
    )
    with beside.open(encoding="utf-8-sig", newline="") as file:
        names = [bare_cell(row["imgId"]) for row in csv.DictReader(file)]
    check(len(names) == len(values), f"{beside.name} names {len(names)} rows, and it has {len(values)}")
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH], values[start : start + BATCH].astype(np.float32)


def _read_csv(path: Path, width: int) -> Iterator[Batch]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header == ["imgId_eId", "val"]:
            yield from _read_long(rows, width)
            return
        check(
            header[:1] == ["imgId"] and len(header) == width + 1,
            f"its header is neither imgId_eId,val nor imgId and {width} columns of values",
        )
        while batch := [row for row, _ in zip(rows, range(BATCH), strict=False)]:
            check(
                all(len(row) == width + 1 for row in batch), "a line has fewer or more cells than the header"
            )
            yield [bare_cell(row[0]) for row in batch], np.array([row[1:] for row in batch], np.float32)


def _read_long(rows: Iterator[list[str]], width: int) -> Iterator[Batch]:
    """Read lines ``imgId_eId,val`` in any order."""
    places: dict[str, int] = {}
    values = np.full((BATCH, width), np.nan, np.float32)
    known = np.zeros((BATCH, width), bool)
    for cell, value in rows:
        name, _, number = bare_cell(cell).rpartition("_")
        check(number.isascii() and number.isdecimal() and int(number) < width, f"{cell} is no imgId_eId")
        place, element = places.setdefault(name, len(places)), int(number)
        if place == len(values):
            check(place < MOST_ROWS, f"it has more than {MOST_ROWS:,} rows")
            values = np.concatenate([values, np.full_like(values, np.nan)])
            known = np.concatenate([known, np.zeros_like(known)])
        check(not known[place, element], f"{cell} stands twice")
        values[place, element], known[place, element] = float(value), True
    short = np.flatnonzero(~known[: len(places)].all(axis=1))
    names = list(places)
    check(
        not len(short),
        f"{preview((names[row] for row in short), len(short))} has fewer than {width} values",
    )
    yield names, values[: len(places)]


def _read_parquet(path: Path, width: int) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = {"imgId", "embedding"} - {*file.schema_arrow.names}
            check(not missing, f"it has no column {', '.join(sorted(missing))}")
            for batch in file.iter_batches(BATCH, columns=["imgId", "embedding"]):
                ids, lists = batch.column(0), batch.column(1)
                check(not ids.null_count and not lists.null_count, "a value is missing")
                lengths = {len(each) for each in lists}
                check(lengths <= {width}, f"a prediction has {max(lengths, default=0)} values, not {width}")
                flat = lists.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
                yield [str(name) for name in ids.to_pylist()], flat.reshape(-1, width)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


def _read_jsonl(path: Path, width: int) -> Iterator[Batch]:
    with path.open(encoding="utf-8") as file:
        while lines := [line for line, _ in zip(file, range(BATCH), strict=False)]:
            records = [json.loads(line) for line in lines if line.strip()]
            check(all(isinstance(each, dict) for each in records), "a line is no object")
            check(
                all(len(each["embedding"]) == width for each in records), f"an embedding is not {width} long"
            )
            yield (
                [str(each["imgId"]) for each in records],
                np.array([each["embedding"] for each in records], np.float32).reshape(-1, width),
            )


READERS: dict[str, Callable[[Path, int], Iterator[Batch]]] = {
    ".csv": _read_csv,
    ".npy": _read_npy,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
}
"""Extension to what reads it."""
