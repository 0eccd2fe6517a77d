"""The scores of a run: metrics with their interval, the floor below them, fold by fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.numerics.bootstrap import effective_groups, interval
from img2prompt_cache.numerics.hubs import corrected_queries
from img2prompt_cache.numerics.metrics import TIE, cosine, mean_cosine, mse, retrieval, unit
from img2prompt_cache.numerics.row_blocks import mean_of_rows
from img2prompt_cache.numerics.similarity_graph import similarity_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.data.splits import Split
    from img2prompt_cache.numerics.row_blocks import Matrix

    _Bank = tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.int64]]

RANKS = (1, 5, 10)


def score(
    predictions: NDArray[np.float32],
    targets: NDArray[np.float32],
    groups: NDArray[np.int64],
    fold: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Score predictions of held-out rows.

    Parameters
    ----------
    predictions, targets : numpy.ndarray, float32, shape (n, t)
        Unit norm.
    groups : numpy.ndarray, int64, shape (n,)
        The bootstrap of the interval resamples whole groups.
    fold : numpy.ndarray, int64, shape (n,), optional
        Fold of each row; one fold if None. See `ranked`.

    Returns
    -------
    dict
        `cosine`; `ci95`, its interval, or None where all rows are one group; `groups`, their number, and
        `effective_groups`; `mse`; `n`; `r@1`, `r@5`, `r@10` and `bank`, see `ranked`; and
        `r@1_corrected`, … with the correction for hubs that `predict` makes.
    """
    inside = interval(cosine(predictions, targets), groups)
    folds = np.zeros(len(targets), np.int64) if fold is None else fold
    banks, vectors = _banks(targets, folds), unit(predictions)
    corrected = _ranked(corrected_queries(vectors, vectors.mean(axis=0)), banks)
    return {
        "cosine": mean_cosine(predictions, targets),
        "ci95": None if inside is None else list(inside),
        "groups": len(np.unique(groups)),
        "effective_groups": effective_groups(groups),
        "mse": mse(predictions, targets),
        "n": len(targets),
        **_ranked(predictions, banks),
        **{f"r@{k}_corrected": corrected[f"r@{k}"] for k in RANKS},
    }


def ranked(
    predictions: NDArray[np.float32], targets: NDArray[np.float32], fold: NDArray[np.int64]
) -> dict[str, float]:
    """Find how often the true prompt is among the nearest of the prompts that were held out with it.

    Each row is ranked within its own fold. Prompts of other folds were training targets of the head that
    predicted it, and a head that answers with training targets would always find one of those first. Prompts
    that are the same to the encoder, such as "A dog" and "a dog", count as one.

    Parameters
    ----------
    predictions, targets : numpy.ndarray, float32, shape (n, t)
    fold : numpy.ndarray, int64, shape (n,)

    Returns
    -------
    dict of str to float
        `r@1`, `r@5`, `r@10`: a share of the rows. `bank`: how many distinct prompts there were to choose
        from, the mean over rows. The share falls as the bank grows, so shares of unequal banks are not
        comparable.
    """
    return _ranked(predictions, _banks(targets, fold))


def _banks(targets: NDArray[np.float32], fold: NDArray[np.int64]) -> list[_Bank]:
    """For each fold, give a mask of its rows, their distinct targets, and which of these each row has."""
    found = []
    for number in np.unique(fold):
        rows = fold == number
        alike = similarity_components(unit(targets[rows]), 1 - TIE)
        _, first, truth = np.unique(alike, return_index=True, return_inverse=True)
        found.append((rows, targets[rows][first], truth))
    return found


def _ranked(predictions: NDArray[np.float32], banks: list[_Bank]) -> dict[str, float]:
    found = dict.fromkeys((*(f"r@{k}" for k in RANKS), "bank"), 0.0)
    for rows, bank, truth in banks:
        weight = float(rows.mean())
        for k, share in retrieval(predictions[rows], bank, truth, RANKS).items():
            found[f"r@{k}"] += weight * share
        found["bank"] += weight * len(bank)
    return {name: min(value, 1.0) if name != "bank" else value for name, value in found.items()}


def score_means(
    predictions: NDArray[np.float32], means: NDArray[np.float32], groups: NDArray[np.int64]
) -> dict[str, Any]:
    """Score predictions of held-out rows against the mean of all prompts of each.

    Parameters
    ----------
    predictions, means : numpy.ndarray, float32, shape (n, t)
        Of any length.
    groups
        As for `score`.

    Returns
    -------
    dict
        `cosine_mean_prompt` and its interval `ci95_mean_prompt`.
    """
    inside = interval(cosine(predictions, means), groups)
    return {
        "cosine_mean_prompt": mean_cosine(predictions, means),
        "ci95_mean_prompt": None if inside is None else list(inside),
    }


def floor(targets: Matrix, split: Split, fitted: Matrix | None = None) -> float:
    """Score the mean head: the mean of `floor_cosines` over the held-out rows.

    Parameters
    ----------
    targets : numpy.ndarray, float32, shape (n, t)
        Unit norm.
    split : Split
        Of those rows.
    fitted
        As for `floor_cosines`.
    """
    return float(np.concatenate([floor_cosines(targets, *side, fitted) for side in split.sides]).mean())


def floor_cosines(
    targets: Matrix,
    train: NDArray[np.int64],
    held: NDArray[np.int64],
    fitted: Matrix | None = None,
) -> NDArray[np.float64]:
    """Compute the cosine of each held-out target with the mean target of the rows fitted on.

    Parameters
    ----------
    targets : numpy.ndarray, float32, shape (n, t)
        Unit norm.
    train, held : numpy.ndarray, int64
        Indices of the rows.
    fitted : numpy.ndarray, float32, shape (n, t), optional
        What the rows are fitted on, if not `targets`.

    Returns
    -------
    numpy.ndarray, float64, of the length of `held`
    """
    known = (targets if fitted is None else fitted)[train]
    return cosine(np.asarray(targets[held]), unit(mean_of_rows(known)))


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
