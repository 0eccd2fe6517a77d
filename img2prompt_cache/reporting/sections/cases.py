"""The section on cases: held-out images that are predicted worst, best, and at random, with reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from img2prompt_cache.progress import Callback
from img2prompt_cache.reporting.case_study import Case, CaseStudy
from img2prompt_cache.reporting.charts import Histogram, histogram
from img2prompt_cache.reporting.reasons import HELPS, LABELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.reporting.material import Material

    F32 = NDArray[np.float32]
    Rows = NDArray[np.int64]

NAME = "cases"
TITLE = "Cases"

EACH = 20
"""Cases shown of each kind."""
STUDIED = 300
"""Rows of the worst tenth, and drawn at random, whose reasons are counted."""


@dataclass(frozen=True, slots=True)
class ReasonShare:
    """How often a reason holds among the worst tenth of the rows, and among all."""

    key: str
    label: str
    helps: bool
    worst: float
    all: float


@dataclass(frozen=True, slots=True)
class CasesSection:
    """Cases of one run.

    Attributes
    ----------
    run : str
    n, mean : int and float
        Held-out rows and their mean cosine.
    cosines : Histogram
    studied, drawn : int
        Rows of which reasons were counted: the worst, and those drawn at random.
    shares : list of ReasonShare
        The most telling first.
    cases : list of Case
    tokens_known : bool
        Whether it is known which prompts are longer than the encoder reads.
    gone : int
        Held-out rows that the cache does not hold any more as they were; nothing here counts them.
    """

    run: str
    n: int
    mean: float
    cosines: Histogram
    studied: int
    drawn: int
    shares: list[ReasonShare]
    cases: list[Case]
    tokens_known: bool
    gone: int = 0

    @property
    def shown(self) -> list[int]:
        """Rows whose pictures are shown."""
        return [row for case in self.cases for row in (case.row, *([case.image.row] if case.image else []))]


def gather(material: Material, tell: Callback) -> CasesSection | None:
    """Make the data of the section, of the best run; None without a run.

    Raises
    ------
    Img2PromptError
        If the cache no longer holds what the run was scored on.
    """
    if material.cache is None or material.board is None:
        return None
    study = CaseStudy(material, material.cache, material.board.best)
    worst = np.argsort(study.cosine, kind="stable")
    lowest = worst[: min(STUDIED, -(-len(worst) // 10))]
    rng = np.random.default_rng(material.seed)
    drawn = np.sort(rng.choice(len(worst), min(STUDIED, len(worst)), replace=False))
    picked = pick(study.cosine, EACH, drawn[rng.permutation(len(drawn))])
    if material.everything:
        picked = {at: picked.get(at, ["other"]) for at in range(len(worst))}
    wanted = np.array(list(dict.fromkeys([*picked, *lowest.tolist(), *drawn.tolist()])), np.int64)
    cases = dict(zip(wanted.tolist(), study.cases(wanted, picked), strict=True))
    if material.compose:
        composed = study.compose(np.array([*picked], np.int64), tell)
        for at, each in zip(picked, composed, strict=True):
            cases[at] = replace(cases[at], composed=each)
    low = [cases[at] for at in lowest.tolist()]
    average = [cases[at] for at in drawn.tolist()]
    floor = study.run.metrics.get("floor")
    return CasesSection(
        run=study.run.name,
        n=len(study.cosine),
        mean=float(study.cosine.mean()),
        cosines=histogram(
            "Cosine of held-out rows",
            "cosine of prediction and truth",
            study.cosine,
            bins=24,
            marks={"mean": float(study.cosine.mean()), **({"floor": floor} if floor is not None else {})},
        ),
        studied=len(low),
        drawn=len(average),
        shares=shares(low, average),
        cases=[cases[at] for at in picked],
        tokens_known=study.tokens is not None,
        gone=study.gone,
    )


def pick(cosine: NDArray[np.float64], each: int, shuffled: Rows) -> dict[int, list[str]]:
    """Choose the worst and the best rows, and some at random; one row may be of several kinds."""
    order = np.argsort(cosine, kind="stable").tolist()
    picked: dict[int, list[str]] = {}
    half = min(each, max(1, len(order) // 2))
    for kind, rows in (
        ("worst", order[:half]),
        ("best", order[::-1][:half]),
        ("random", shuffled[:each].tolist()),
    ):
        for row in rows:
            picked.setdefault(row, []).append(kind)
    return picked


def shares(worst: list[Case], average: list[Case]) -> list[ReasonShare]:
    """Compare how often each reason holds in two samples, the largest difference first."""
    counts = [
        Counter(key for case in cases for key in {reason.key for reason in case.reasons})
        for cases in (worst, average)
    ]
    found = [
        ReasonShare(
            key,
            label,
            key in HELPS,
            counts[0][key] / max(1, len(worst)),
            counts[1][key] / max(1, len(average)),
        )
        for key, label in LABELS.items()
        if counts[0][key] or counts[1][key]
    ]
    return sorted(found, key=lambda each: -(abs(each.worst - each.all)))
