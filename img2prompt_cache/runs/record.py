"""The record of a run: what `run.json` says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

from img2prompt_cache.data.columns import UsedColumn
from img2prompt_cache.data.further_prompts import TrainOn

Metrics = TypedDict(
    "Metrics",
    {
        "cosine": float,
        "ci95": list[float] | None,
        "groups": int,
        "effective_groups": float,
        "mse": float,
        "n": int,
        "r@1": float,
        "r@5": float,
        "r@10": float | None,
        "r@1_corrected": float,
        "r@5_corrected": float,
        "r@10_corrected": float,
        "bank": float | None,
        "floor": float | None,
        "leakage_gap": float | None,
        "leakage_gap_ci95": list[float] | None,
        "leakage_gap_floor": float | None,
        "cosine_mean_prompt": float,
        "ci95_mean_prompt": list[float] | None,
        "teacher": float,
        "plain": float,
        "nested": float,
        "beyond_best": float,
        "beyond_best_ci95": list[float] | None,
    },
    total=False,
)
"""Of the held-out rows; runs of older versions lack some.

`cosine`: the mean, and `ci95` its 95 % interval by bootstrap over groups: `groups` of them, as good as
`effective_groups` of equal size. `mse`: mean squared error of the vectors. `n`: rows. `r@k`: how often the
true prompt is among the k nearest of those held out in the same fold, and `bank` how many distinct ones these
are, the mean over rows; a run by folds that lacks `bank` was ranked among the prompts of all folds.
`r@k_corrected`: the same, ranked with the correction for hubs that `predict` makes. `floor`: the mean cosine
of the mean head. `leakage_gap`: how much higher the head scores if rows are divided at random, beyond
`leakage_gap_floor`, which the mean head gains, and `leakage_gap_ci95` its interval; None if that was not
tried. In a run that lacks the interval, it is the plain difference from a random split of other rows.
`cosine_mean_prompt`, `ci95_mean_prompt`: where rows have several prompts, the score on the mean of all
prompts of each row; all else is on the first.
`nested`: of a blend by folds, 1 where the weights that scored a fold were found on predictions by members
that had not seen it, 0 where the members take too long to fit for that; then, and in a run that lacks it, the
score is a little too high.
`beyond_best`: how much higher a blend scores than its best member, row by row, and `beyond_best_ci95` the
interval of that.
`teacher`, `plain`: of a student's teacher, and of the same student without one.
"""


class CheckRecord(TypedDict, total=False):
    """What an exact search across a split found.

    `rows`: held-out rows that were compared with all training rows of their fold; `pairs`: pairs of prompts;
    `found`: how many of these are near-identical, 0 where the split keeps its promise.
    """

    rows: int
    pairs: int
    found: int


class SplitRecord(TypedDict, total=False):
    """How the rows were divided; runs of older versions lack some.

    `digest` and `contents_digest` are equal for runs whose scores may be compared, see `same_split`;
    `held_digest` is of the held-out rows alone, to find them again in a cache that has grown; `straddling` is
    the number of groups with rows on both sides; `largest_group` the number of rows in the largest; `purged`
    how many rows were left out because they are near-identical to a held-out row, for a test set and where
    groups are clusters; by folds, how many one fold at least left out. `clustered`: true where groups are
    clusters of similar prompts, as in a split of many rows; `check`: what an exact search found across it.
    `group_encoder`, `group_threshold`: the target column and the smallest cosine by which prompts count as
    near-identical; in a run that lacks them, the first column and 0.8.
    """

    strategy: str
    seed: int
    folds: int
    digest: str
    contents_digest: str
    held_digest: str
    train: int
    validation: int
    groups: int
    straddling: int
    largest_group: int
    purged: int
    clustered: bool
    check: CheckRecord
    group_encoder: str
    group_threshold: float


class ExpectedRecord(TypedDict, total=False):
    """How well the expected cosines agree with the true ones, on held-out rows that they were not fitted on.

    `signals`: what they are computed from; where there are none, they are the mean cosine. `n`: rows.
    `spearman`: rank correlation. `calibration_error`: mean distance between both in ten bins of equal size.
    Both are None where there are no signals, and the first also where all are equal. `coverage`: for each
    threshold `min_expected`, the `share` of rows expected to reach it, and their mean true `cosine`.
    `sha256`: of `expected.safetensors`.
    """

    signals: list[str]
    n: int
    spearman: float | None
    calibration_error: float | None
    coverage: list[dict[str, float]]
    sha256: str


UNORDERED = 0.2
"""Rank correlation with the true cosines below which expected ones hardly tell good predictions from bad."""


def same_split(one: SplitRecord, other: SplitRecord) -> bool:
    """Whether two runs were scored on the same rows, and fitted on the same others.

    `contents_digest` says it of prompts, images and targets of all rows; for a run of an older version, which
    lacks it, `digest` has to do.
    """
    contents = {each["contents_digest"] for each in (one, other) if "contents_digest" in each}
    return one["digest"] == other["digest"] and len(contents) < 2


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What `run.json` says.

    Attributes
    ----------
    head : str
        Name of the head.
    settings : dict
        Arguments of its constructor, with what fitting chose put in.
    features : tuple of UsedColumn
        Features of the backbones, in the order they are joined.
    target : UsedColumn
        Embeddings by the text encoder.
    split : SplitRecord
    metrics : Metrics
        On the hold-out, or over all folds.
    seconds : float
        Wall time of fitting, without the fit that measures the leakage gap.
    refit : bool
        Whether the saved head was fitted again on all rows.
    rows : int
        Rows the saved head was fitted on.
    cache : str
        The cache, as an absolute path; a run inside its cache finds it there first.
    created : str
        UTC, ISO 8601.
    measured : dict
        What fitting the saved head found out about itself; see `Head.measured`.
    versions : dict of str to str
        Of the libraries that made it.
    head_sha256 : str
        Of `head.safetensors`.
    parameters : int or None
        How many values were fitted and saved; None in older runs, as in what follows.
    predict_rows_per_second : float or None
        Of predicting the held-out rows from cached features.
    fold_metrics : list of dict
        `cosine`, `n` and what was `chosen` for each fold; empty for a hold-out.
    train_on : str
        ``"mean"`` if rows with several prompts were fitted on the mean of them; ``"first"`` if no row had
        several, or only the first counted, as in older runs.
    updates : int
        How many updates of cached rows the cache had when it was fitted; see `Manifest.updates`. 0 in older
        runs, which no cache with updates can have had.
    expected : dict or None
        See `ExpectedRecord`.
    request : dict
        What was asked for: the parameters of `fit`, but for features, target and device, which stand
        elsewhere. Of a student that learned from a run: its `teacher`, with the digest of that head. Empty in
        older runs, and in blends of runs.
    series : str
        Shared by the runs that one fit with several seeds made: a name, ``@``, and when. Empty for a run that
        was fitted alone.
    """

    head: str
    settings: dict[str, Any]
    features: tuple[UsedColumn, ...]
    target: UsedColumn
    split: SplitRecord
    metrics: Metrics
    seconds: float
    refit: bool
    rows: int
    cache: str
    created: str
    measured: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    head_sha256: str = ""
    parameters: int | None = None
    predict_rows_per_second: float | None = None
    fold_metrics: list[dict[str, Any]] = field(default_factory=list)
    train_on: TrainOn = "first"
    updates: int = 0
    expected: ExpectedRecord | None = None
    request: dict[str, Any] = field(default_factory=dict)
    series: str = ""

    @property
    def doubts(self) -> str:
        """Why its expected cosines hardly tell good predictions from bad ones; empty where they do tell them.

        Empty also where a run has none, or the same for all predictions.
        """
        order = (self.expected or {}).get("spearman")
        if order is None or order >= UNORDERED:
            return ""
        return (
            "expected cosines of this run hardly tell good predictions from bad ones: on held-out rows their "
            f"rank correlation with the true ones is {order:.2f}"
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """How many values a row of each column has."""
        return tuple(column.width for column in self.features)
