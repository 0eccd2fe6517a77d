"""The section on heads: how runs compare, how they came about, and on which rows they are good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.bootstrap import FEW_GROUPS
from img2prompt_cache.progress import Callback, warn
from img2prompt_cache.reporting.charts import Curve, Curves
from img2prompt_cache.reporting.curves import History, loss_curves, score_curves, tried_curves
from img2prompt_cache.runs.board import Leaderboard
from img2prompt_cache.runs.breakdown import Cell, breakdown, held_out
from img2prompt_cache.runs.differences import differences
from img2prompt_cache.runs.held_out import cosines_of
from img2prompt_cache.runs.names import joined_name
from img2prompt_cache.tuning.importance import FEWEST, interactions
from img2prompt_cache.tuning.study import COMPLETE, FAILED, PRUNED

if TYPE_CHECKING:
    from img2prompt_cache.reporting.material import Material
    from img2prompt_cache.runs.run import Run
    from img2prompt_cache.tuning.finished import FinishedStudy

NAME = "heads"
TITLE = "Heads"

MOST_RUNS, MOST_BROKEN_DOWN, MOST_CHARTS, MOST_STUDIES = 60, 8, 12, 6
FEW_ROWS = 5
ON_THE_AXIS = ("cosine", "ci95_low", "ci95_high", "floor")


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in the leaderboard.

    Attributes
    ----------
    name, head, features : str
    values : dict of str to number or None
        As `Leaderboard.records` gives them.
    difference, difference_low, difference_high, p : float or None
        Of the run from the best one on the same rows.
    folds : list of float
        Cosine of each fold.
    outdated : str
        What has changed in its rows since.
    """

    name: str
    head: str
    features: str
    values: dict[str, Any]
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    folds: list[float] = field(default_factory=list)
    outdated: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a blend: its weight, its own cosine, and that of the blend without it."""

    name: str
    weight: float
    cosine: float | None
    without: float | None


@dataclass(frozen=True, slots=True)
class Blended:
    """A blend and its members."""

    run: str
    cosine: float
    members: list[Member]


@dataclass(frozen=True, slots=True)
class Steps:
    """What the best head tried, step by step."""

    run: str
    steps: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Searched:
    """A study: how many trials ended how, the settings of the best one, and what each setting did.

    `influence` is as `img2prompt_cache influence` gives it, `shared` what no setting explains alone; main
    effects are None with fewer than `fewest` scored trials.
    """

    name: str
    head: str
    scored: int
    pruned: int
    failed: int
    best: dict[str, Any]
    cosine: float | None
    trials: Curves | None
    influence: list[Any]
    shared: float | None
    fewest: int = FEWEST


@dataclass(frozen=True, slots=True)
class ExpectedRow:
    """How well a run's expected cosines agree with the true ones; see `ExpectedRecord`."""

    run: str
    n: int
    spearman: float | None
    calibration_error: float | None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Mean cosines of the best runs on some of the rows: `cells` name these, in the order of `runs`."""

    by: str
    runs: list[str]
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class HeadsSection:
    """Runs of one split.

    Attributes
    ----------
    title : str
        One line on the split.
    few_groups : str
        Says so where intervals rest on too few groups; else empty.
    best : str
        The run with the highest cosine, from which the others differ.
    runs : list of RunRow
        Best first.
    left_out : int
        How many runs are not shown.
    scale, difference_scale : tuple of float
        Ends of the axes on which intervals are drawn.
    losses, tried : list of Curves
    scores : Curves or None
    expected : list of ExpectedRow
    coverage : Curves or None
        Mean true cosine of the rows that are expected to be good, by how many of the rows these are.
    blends : list of Blended
    steps : list of Steps
    studies : list of Searched
    breakdowns : list of Breakdown
    others, unreadable : list of str
        Runs of another split or target, and damaged ones.
    notes : list of str
        What could not be told, and why.
    """

    title: str
    few_groups: str
    best: str
    runs: list[RunRow]
    left_out: int
    scale: tuple[float, float]
    difference_scale: tuple[float, float]
    losses: list[Curves]
    scores: Curves | None
    tried: list[Curves]
    expected: list[ExpectedRow]
    coverage: Curves | None
    blends: list[Blended]
    steps: list[Steps]
    studies: list[Searched]
    breakdowns: list[Breakdown]
    others: list[str]
    unreadable: list[str]
    notes: list[str]


def gather(material: Material, tell: Callback) -> HeadsSection | None:
    """Make the data of the section; None without a run or a study."""
    board, notes = material.board, list[str](material.problems)
    studies = [searched(study) for study in material.studies[-MOST_STUDIES:]]
    if board is None or not board.runs:
        return None if not studies else _without_runs(studies, notes)
    runs = board.runs[:MOST_RUNS]
    rows = _rows(board, runs, notes)
    histories = [(run, _history(run, notes)) for run in runs]
    for line in notes:
        warn(tell, line)
    named = [(run.name, history) for run, history in histories]
    return HeadsSection(
        title=board.title,
        few_groups=_few_groups(board),
        best=board.best.name,
        runs=rows,
        left_out=len(board.runs) - len(runs),
        scale=scale_of([row.values.get(key) for row in rows for key in ON_THE_AXIS]),
        difference_scale=scale_of(
            [0.0, *(end for row in rows for end in (row.difference, row.difference_low, row.difference_high))]
        ),
        losses=[curves for name, history in named if (curves := loss_curves(name, history))][:MOST_CHARTS],
        scores=score_curves(named),
        tried=[
            curves
            for run, history in histories
            if run.head not in ("best", "blend")
            for curves in tried_curves(run.name, history)
        ][:MOST_CHARTS],
        expected=expected_rows(runs),
        coverage=coverage_curves(runs),
        blends=[blended(run) for run in runs if run.settings.get("weights")],
        steps=[Steps(run.name, list(history)) for run, history in histories if run.head == "best"],
        studies=studies,
        breakdowns=_breakdowns(material, runs[:MOST_BROKEN_DOWN], notes),
        others=[run.name for run in board.others],
        unreadable=[f"{folder.name}: {why}" for folder, why in board.unreadable.items()],
        notes=notes,
    )  # fmt: skip


def _without_runs(studies: list[Searched], notes: list[str]) -> HeadsSection:
    return HeadsSection(
        title="", few_groups="", best="", runs=[], left_out=0, scale=(0.0, 1.0), difference_scale=(-1.0, 1.0),
        losses=[], scores=None, tried=[], expected=[], coverage=None, blends=[], steps=[], studies=studies,
        breakdowns=[], others=[],
        unreadable=[], notes=notes,
    )  # fmt: skip


def scale_of(values: Sequence[float | None]) -> tuple[float, float]:
    """Choose the ends of an axis on which all of these have room."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + margin


def _rows(board: Leaderboard, runs: Sequence[Run], notes: list[str]) -> list[RunRow]:
    try:
        found = differences(board.entries[: len(runs)], board.entries[0])
    except Img2PromptError as error:
        notes.append(f"runs are not compared row by row: {error}")
        found = [None] * len(runs)
    rows = []
    for run, record, difference in zip(runs, board.records(), found, strict=False):
        low, high = (difference.ci95 if difference else None) or (None, None)
        rows.append(
            RunRow(
                run.name,
                run.head,
                joined_name([column.spec for column in run.features]),
                {key: value for key, value in record.items() if key not in ("run", "head", "features")},
                difference.cosine if difference else None,
                low,
                high,
                difference.p if difference else None,
                [fold["cosine"] for fold in run.fold_metrics],
                board.outdated.get(run.folder, ""),
            )
        )
    return rows


def _few_groups(board: Leaderboard) -> str:
    effective = board.effective_groups
    if effective is None or effective >= FEW_GROUPS:
        return ""
    return (
        f"The held-out rows are like {effective:.1f} groups of equal size; with fewer than {FEW_GROUPS} the "
        "intervals are too narrow."
    )


def blended(run: Run) -> Blended:
    """Describe the members of a blend, the heaviest first."""
    pairs = zip(run.settings.get("members") or (), run.settings["weights"], strict=False)
    members = [
        Member(
            str(member.get("run") or member.get("head", "")),
            float(weight),
            member.get("cosine"),
            member.get("without"),
        )
        for member, weight in pairs
    ]
    return Blended(run.name, run.metrics["cosine"], sorted(members, key=lambda each: -each.weight))


def expected_rows(runs: Sequence[Run]) -> list[ExpectedRow]:
    """Say how well expected cosines agree with true ones, for each run that tells rows apart by them."""
    return [
        ExpectedRow(
            run.name,
            run.expected.get("n", 0),
            run.expected.get("spearman"),
            run.expected["calibration_error"],
        )
        for run in runs
        if run.expected is not None and run.expected.get("calibration_error") is not None
    ]


def coverage_curves(runs: Sequence[Run]) -> Curves | None:
    """Draw the mean true cosine of the rows that are expected to be good, by the share that they are."""
    curves = []
    for run in runs:
        kept = sorted((run.expected or {}).get("coverage") or [], key=lambda each: each["share"])
        if len(kept) > 1:
            shares = tuple(100 * each["share"] for each in kept)
            curves.append(Curve(run.name, shares, tuple(each["cosine"] for each in kept)))
    if not curves:
        return None
    return Curves(
        "Keeping those that are expected to be good",
        "% of the rows kept",
        "cosine",
        tuple(curves[:MOST_BROKEN_DOWN]),
    )


def searched(study: FinishedStudy) -> Searched:
    """Describe a study."""
    scored = [trial for trial in study.trials if trial.state == COMPLETE and trial.cosine is not None]
    best = max(scored, key=lambda trial: trial.cosine or -1.0, default=None)
    table = study.influence()
    trials = None
    if scored:
        numbers = tuple(float(trial.number) for trial in scored)
        cosines = tuple(float(trial.cosine or 0.0) for trial in scored)
        so_far = tuple(np.maximum.accumulate(cosines).tolist())
        trials = Curves(
            f"{study.file.stem}: trials", "trial", "cosine",
            (Curve("best so far", numbers, so_far), Curve("trial", numbers, cosines)),
        )  # fmt: skip
    return Searched(
        name=study.file.stem,
        head=study.head,
        scored=len(scored),
        pruned=sum(trial.state == PRUNED for trial in study.trials),
        failed=sum(trial.state == FAILED for trial in study.trials),
        best=dict(best.settings) if best else {},
        cosine=best.cosine if best else None,
        trials=trials,
        influence=list(table),
        shared=interactions(table),
    )


def _breakdowns(material: Material, runs: Sequence[Run], notes: list[str]) -> list[Breakdown]:
    names = [run.name for run in runs]
    try:
        found = [
            Breakdown("length of the prompt in words", names, breakdown([[run] for run in runs], "length")),
            Breakdown("cluster of prompts", names, breakdown([[run] for run in runs], "cluster")),
        ]
        programs = by_program(material, runs)
    except Img2PromptError as error:
        notes.append(f"scores are not broken down: {error}")
        return []
    return [*found, Breakdown("program that wrote the prompt", names, programs)] if programs else found


def by_program(material: Material, runs: Sequence[Run]) -> list[Cell]:
    """Take the mean cosine of every run on the held-out rows of each program; empty where it is only one."""
    rows = material.rows
    program = dict(zip(rows.ids, rows.found_in, strict=True))
    ids = held_out(runs).ids
    names = np.array([program.get(name, "") for name in ids])
    counts = {name: int((names == name).sum()) for name in np.unique(names).tolist()}
    if len(counts) < 2:
        return []
    cosines = [cosines_of(run.folder, run, ids) for run in runs]
    return [
        Cell(name or "not known", count, [float(each[names == name].mean()) for each in cosines])
        for name, count in sorted(counts.items(), key=lambda each: -each[1])
        if count >= FEW_ROWS
    ]


def _history(run: Run, notes: list[str]) -> History:
    try:
        return list(run.history)
    except Img2PromptError as error:
        notes.append(str(error))
        return []
