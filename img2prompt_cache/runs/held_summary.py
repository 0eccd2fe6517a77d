"""What a shared run keeps of its held-out rows: no name of a row, and no prediction for one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError, check
from img2prompt_cache.runs.held_out import COSINE_ROUNDING, SUMMARY, load_validation, mean_prediction
from img2prompt_cache.runs.record import RunRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class HeldSummary:
    """A summary of held-out rows.

    Attributes
    ----------
    mean_prediction : numpy.ndarray, float32, shape (t,)
        See `held_out.mean_prediction`.
    cosine : numpy.ndarray, float64, shape (n,)
        The cosines of all held-out rows in ascending order, so that none can be told to be that of a row.
    """

    mean_prediction: NDArray[np.float32]
    cosine: NDArray[np.float64]


def summarise(folder: Path, record: RunRecord) -> HeldSummary:
    """Summarise what a run said about its held-out rows, or read that of a shared run.

    Raises
    ------
    Img2PromptError
        If its files are missing or damaged.
    """
    if (folder / SUMMARY).is_file():
        return load_summary(folder, record)
    cosines = np.sort(load_validation(folder, record).cosine)
    return HeldSummary(mean_prediction(folder, record.target.width), cosines)


def save_summary(folder: Path, summary: HeldSummary) -> None:
    """Write `held_out.safetensors`.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[Any]] = {"mean_prediction": summary.mean_prediction, "cosine": summary.cosine}
    save_file(arrays, folder / SUMMARY)


def load_summary(folder: Path, record: RunRecord) -> HeldSummary:
    """Read `held_out.safetensors`, which anybody may have written.

    Raises
    ------
    Img2PromptError
        If it is missing or damaged, or does not fit the record.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / SUMMARY
    try:
        with safe_open(path, framework="numpy") as file:
            for name, most in (("mean_prediction", record.target.width), ("cosine", record.metrics["n"])):
                check(math.prod(file.get_slice(name).get_shape()) <= most, f"its {name} is too large")
            mean, cosine = file.get_tensor("mean_prediction"), file.get_tensor("cosine")
        check(mean.dtype == np.float32 and cosine.dtype == np.float64, "its values are of another type")
        check(mean.shape == (record.target.width,), f"the mean is not {record.target.width} wide")
        check(cosine.shape == (record.metrics["n"],), f"it has not {record.metrics['n']} cosines")
        check(bool(np.isfinite(mean).all() and np.isfinite(cosine).all()), "it holds NaN or infinity")
        check(bool((np.abs(cosine) <= 1 + COSINE_ROUNDING).all()), "a cosine is not between −1 and 1")
        away = abs(float(cosine.mean()) - record.metrics["cosine"])
        check(away < 1e-6, "their mean is not the cosine of the run")
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise Img2PromptError(f"{path} cannot be read: {error}") from None
    return HeldSummary(mean, cosine)
