"""The scores of a run: metrics with their interval, the floor below them, fold by fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.numerics.bootstrap import interval
from img2prompt_cache.numerics.metrics import TIE, cosine, mean_cosine, mse, retrieval, unit
from img2prompt_cache.numerics.similarity_graph import similarity_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.splits import Split

RANKS = (1, 5, 10)


def score(
    predictions: NDArray[np.float32], targets: NDArray[np.float32], groups: NDArray[np.int64]
) -> dict[str, Any]:
    """Score predictions of held-out rows.

    Parameters
    ----------
    predictions, targets : numpy.ndarray, float32, shape (n, t)
        Unit norm. Retrieval is among the distinct targets: prompts that are the same to the encoder, such as
        "A dog" and "a dog", count as one.
    groups : numpy.ndarray, int64, shape (n,)
        The bootstrap of the interval resamples whole groups.

    Returns
    -------
    dict
        `cosine`; `ci95`, its interval, or None where all rows are one group; `mse`; `n`; and `r@1`, `r@5`,
        `r@10`: how often the true prompt is the nearest, or among so many.
    """
    _, first, truth = np.unique(
        similarity_components(unit(targets), 1 - TIE), return_index=True, return_inverse=True
    )
    found = retrieval(predictions, targets[first], truth, RANKS)
    inside = interval(cosine(predictions, targets), groups)
    return {
        "cosine": mean_cosine(predictions, targets),
        "ci95": None if inside is None else list(inside),
        "mse": mse(predictions, targets),
        "n": len(targets),
        **{f"r@{k}": share for k, share in found.items()},
    }


def floor(targets: NDArray[np.float32], split: Split) -> float:
    """Score the mean head: mean cosine of held-out targets with the mean target of the rows fitted on.

    Parameters
    ----------
    targets : numpy.ndarray, float32, shape (n, t)
        Unit norm.
    split : Split
        Of those rows.
    """
    cosines = [
        cosine(targets[held], unit(targets[train].mean(axis=0, keepdims=True, dtype=np.float64)))
        for train, held in split.sides
    ]
    return float(np.concatenate(cosines).mean())


def by_fold(
    cosines: NDArray[np.float64], fold: NDArray[np.int64], chosen: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Give each fold its mean `cosine`, its number of rows `n`, and the settings `chosen` for it.

    Parameters
    ----------
    cosines : numpy.ndarray, float64, shape (n,)
    fold : numpy.ndarray, int64, shape (n,)
    chosen : list of dict, one for each fold
    """
    return [
        {
            "cosine": float(cosines[fold == number].mean()),
            "n": int((fold == number).sum()),
            "chosen": settings,
        }
        for number, settings in enumerate(chosen)
    ]
