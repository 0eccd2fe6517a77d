"""Breakdowns: held-out rows by the length of their prompts, or by what those are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.splits import rows_digest
from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.runs.held_out import cosines_of, load_validation
from img2prompt_cache.runs.record import same_split
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

LENGTHS = {"≤5": 5, "6–10": 10, "11–20": 20, "21–40": 40, ">40": np.inf}
"""Bins of prompts by their number of words, and the most that each takes."""

MOST_CLUSTERS, ROWS_PER_CLUSTER = 12, 20
KINDS = ("length", "cluster")


@dataclass(frozen=True, slots=True)
class Cell:
    """Some held-out rows: what they have in common, how many they are, and each run's mean cosine on them.

    `cosines` are in the order of the leaderboard; None where there are no rows.
    """

    name: str
    n: int
    cosines: list[float | None]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """The held-out rows of a split as the cache has them: ids, prompts, targets float32 (n, t)."""

    ids: list[str]
    prompts: list[str]
    targets: NDArray[np.float32]


def breakdown(entries: Sequence[Sequence[Run]], kind: str) -> list[Cell]:
    """Take the mean cosine of every entry of a leaderboard on parts of the held-out rows.

    Parameters
    ----------
    entries : sequence of sequence of Run
        Of each entry its runs; all were scored on the same rows.
    kind : str
        ``"length"`` of the prompt in words, or ``"cluster"`` of its embedding.

    Raises
    ------
    UsageError
        If `kind` is unknown, or the runs are of several splits.
    Img2PromptError
        If no cache of these runs is found, or it no longer holds their rows.
    """
    if kind not in KINDS:
        raise unknown("`by`", kind, KINDS, parameter="by")
    runs = [run for entry in entries for run in entry]
    if not all(same_split(run.split, runs[0].split) for run in runs):
        raise UsageError(
            "`by` tells parts of the rows of one split, and these runs have several; name runs of one split",
            parameter="by",
        )
    rows = held_out(runs)
    groups = by_length(rows.prompts) if kind == "length" else by_cluster(rows.prompts, rows.targets)
    cosines = [np.mean([cosines_of(run.folder, run, rows.ids) for run in entry], axis=0) for entry in entries]
    return [
        Cell(name, len(inside), [float(each[inside].mean()) if len(inside) else None for each in cosines])
        for name, inside in groups.items()
    ]


def by_length(prompts: Sequence[str]) -> dict[str, Rows]:
    """Bin prompts by their number of words; a bin may be empty.

    Returns
    -------
    dict of str to numpy.ndarray, int64
        The rows of each of `LENGTHS`.
    """
    words = np.array([len(prompt.split()) for prompt in prompts])
    found, over = {}, -1.0
    for name, most in LENGTHS.items():
        found[name] = np.flatnonzero((words > over) & (words <= most))
        over = most
    return found


def by_cluster(prompts: Sequence[str], targets: NDArray[np.float32], seed: int = 0) -> dict[str, Rows]:
    """Cluster prompts by k-means of their embeddings: √(n/20) clusters, 12 at most, the largest first.

    Parameters
    ----------
    prompts : sequence of str, length n
    targets : numpy.ndarray, float32, shape (n, t)
        Unit norm.
    seed : int
        Of the first centres.

    Returns
    -------
    dict of str to numpy.ndarray, int64
        The rows of each cluster, under its most central prompt.
    """
    from sklearn.cluster import KMeans

    distinct = len(np.unique(targets.round(5), axis=0))
    k = min(max(round((len(prompts) / ROWS_PER_CLUSTER) ** 0.5), 1), MOST_CLUSTERS, distinct)
    label = KMeans(k, n_init=4, random_state=seed).fit_predict(targets)
    found = {}
    for number in np.argsort(-np.bincount(label, minlength=k), kind="stable"):
        rows = np.flatnonzero(label == number)
        centre = unit(targets[rows].mean(axis=0, keepdims=True))[0]
        found[prompts[rows[np.argmax(targets[rows] @ centre)]]] = rows
    return found


def held_out(runs: Sequence[Run]) -> HeldOut:
    """Read the held-out rows of runs of one split from a cache that they were fitted on.

    Raises
    ------
    Img2PromptError
        If none is found, or the rows or targets in it are not those that were scored.
    """
    for run in runs:
        if run.home is not None and "held_digest" in run.split:
            return _read(Cache(run.home), run)
    newer = [run for run in runs if "held_digest" in run.split]
    why = (
        f"their cache is gone; it was {newer[0].cache}"
        if newer
        else "they are of an older version; fit again"
    )
    raise Img2PromptError(f"`by` needs the prompts that these runs were scored on, but {why}", parameter="by")


def _read(cache: Cache, run: Run) -> HeldOut:
    target = cache.column("targets", run.target.spec)
    cache.require_undamaged([cache.manifest.columns[0], target])
    text = cache.text("imgId", "prompt", "sha256")
    row_of = {name: row for row, name in enumerate(text["imgId"])}
    ids = sorted(load_validation(run.folder, run).ids)
    rows = np.array([row_of[name] for name in ids if name in row_of], np.int64)
    digest = rows_digest(rows, text["imgId"], text["prompt"], text["sha256"])
    if digest != run.split["held_digest"] or target.fingerprint != run.target.fingerprint:
        raise Img2PromptError(
            f"{cache.folder} no longer holds what {run.name} was scored on: a prompt, image or encoder "
            "has changed; fit it again"
        )
    return HeldOut(ids, [text["prompt"][row] for row in rows], cache.values(target, rows))
