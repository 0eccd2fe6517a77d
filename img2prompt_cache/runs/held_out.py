"""Validation: what a run said of held-out rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError, check
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.runs.record import RunRecord
from img2prompt_cache.runs.run_file import INFO
from img2prompt_cache.tables import bare_cell, counted, guard_cell

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_ARRAY = (AttributeError, RecursionError, SyntaxError, TokenError)
"""What NumPy raises, besides `ValueError`, for a header that is none."""

COSINE_ROUNDING = 1e-4

MOST_AVERAGED = 20_000
"""Rows of which a mean prediction is computed: of more, it would be the same to three digits."""

VALIDATION, VALIDATION_ROWS = "validation.npy", "validation.csv"
SUMMARY = "held_out.safetensors"
"""What a shared run has in their place; see `held_summary`."""


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """What a run said of held-out rows: ids; predictions, float32 (n, t); groups, cosine and fold, (n,)."""

    ids: list[str]
    groups: NDArray[np.int64]
    predictions: NDArray[np.float32]
    cosine: NDArray[np.float64]
    fold: NDArray[np.int64]


def save_validation(folder: Path, held: Validation) -> None:
    """Write what a run said about its hold-out: `validation.npy`, and `validation.csv` with a line a row."""
    np.save(folder / VALIDATION, held.predictions, allow_pickle=False)
    columns = (held.groups.tolist(), held.cosine.tolist(), held.fold.tolist())
    with (folder / VALIDATION_ROWS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["imgId", "group", "cosine", "fold"])
        writer.writerows(zip(map(guard_cell, held.ids), *columns, strict=True))


def load_validation(folder: Path, record: RunRecord | None = None) -> Validation:
    """Read what a run said about its hold-out.

    Parameters
    ----------
    folder : pathlib.Path
    record : RunRecord, optional
        What its `run.json` says, to check that the predictions are those that were scored.

    Raises
    ------
    Img2PromptError
        If the files are missing, as in a shared run, or do not fit each other or the run.
    """
    if (folder / SUMMARY).is_file() and not (folder / VALIDATION_ROWS).exists():
        raise Img2PromptError(
            f"the run in {folder} was shared without its held-out rows, which this takes; use the run as it "
            "was fitted"
        )
    try:
        held = _read_validation(folder)
        if record is not None:
            check(
                len(held.ids) == record.metrics["n"],
                f"{counted(len(held.ids), 'row', 'rows')}, {INFO} says {record.metrics['n']}",
            )
            check(
                held.predictions.shape[1] == record.target.width, f"they are not {record.target.width} wide"
            )
            away = abs(float(held.cosine.mean()) - record.metrics["cosine"])
            check(away < 1e-6, f"their mean cosine is not the one in {INFO}")
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, csv.Error, *NO_ARRAY) as error:
        raise Img2PromptError(
            f"the validation predictions of {folder} cannot be read: {error}; fit it again"
        ) from None
    return held


def cosines_of(folder: Path, record: RunRecord, ids: Sequence[str]) -> NDArray[np.float64]:
    """Read the cosine of each held-out row of a run, in the order of `ids`.

    Raises
    ------
    Img2PromptError
        If these are not its held-out rows.
    """
    held = load_validation(folder, record)
    place = {name: row for row, name in enumerate(held.ids)}
    if place.keys() != {*ids}:
        raise Img2PromptError(
            f"the validation predictions of {folder} are of other rows than its split held out; fit it again"
        )
    return held.cosine[[place[name] for name in ids]]


def mean_prediction(folder: Path, width: int) -> NDArray[np.float32]:
    """Compute the mean of a run's predictions for held-out rows, each scaled to length 1.

    Parameters
    ----------
    folder : pathlib.Path
    width : int
        Of the predictions, as the record says.

    Returns
    -------
    numpy.ndarray, float32, shape (width,)
        Of every second, third, … row where there are more than `MOST_AVERAGED`, so that it takes no time.

    Raises
    ------
    Img2PromptError
        If `validation.npy` cannot be read, or its predictions are of another width or not finite.
    """
    try:
        predictions = _map_predictions(folder)
        check(
            predictions.shape[1] == width and len(predictions) > 0,
            f"they are not {width} wide, or there are none",
        )
        found: NDArray[np.float32] = unit(predictions[:: -(-len(predictions) // MOST_AVERAGED)]).mean(axis=0)
        check(bool(np.isfinite(found).all()), "they hold NaN or infinity")
    except (OSError, ValueError, TypeError, ArithmeticError, *NO_ARRAY) as error:
        raise Img2PromptError(
            f"the validation predictions of {folder} cannot be read: {error}; fit it again"
        ) from None
    return found


def _map_predictions(folder: Path) -> NDArray[Any]:
    # Mapped, because NumPy would make room for whatever the header says, and the file may be shorter.
    predictions: NDArray[Any] = np.lib.format.open_memmap(folder / VALIDATION, mode="r")
    check(predictions.dtype.kind == "f" and predictions.itemsize <= 4, "they are not float32")
    check(predictions.ndim == 2, f"they have the shape {predictions.shape}")
    return predictions


def _read_validation(folder: Path) -> Validation:
    with (folder / VALIDATION_ROWS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    predictions = _map_predictions(folder)
    check(len(predictions) == len(rows), f"{len(rows)} ids for predictions of shape {predictions.shape}")
    held = Validation(
        ids=[bare_cell(row["imgId"]) for row in rows],
        groups=np.array([int(row["group"]) for row in rows], np.int64),
        predictions=predictions.astype(np.float32),
        cosine=np.array([float(row["cosine"]) for row in rows]),
        fold=np.array([int(row.get("fold", 0)) for row in rows], np.int64),  # older runs have only one
    )
    check(len({*held.ids}) == len(held.ids), "an imgId stands twice")
    finite = np.isfinite(held.cosine).all() and np.isfinite(held.predictions).all()
    check(bool(finite), "they hold NaN or infinity")
    check(bool((np.abs(held.cosine) <= 1 + COSINE_ROUNDING).all()), "a cosine is not between −1 and 1")
    return held
