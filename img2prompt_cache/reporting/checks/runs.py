"""Checks of the runs: scores that say less than they seem to, and searches that ended too early."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.bootstrap import FEW_GROUPS
from img2prompt_cache.reporting.checks.base import Finding, NotCheckedError
from img2prompt_cache.reporting.differences import paired
from img2prompt_cache.runs.record import UNORDERED
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from img2prompt_cache.reporting.material import Material
    from img2prompt_cache.runs.board import Leaderboard
    from img2prompt_cache.runs.differences import Difference
    from img2prompt_cache.runs.run import Run

LARGE_GROUP = 0.2
"""Share of the rows from which one group decides too much."""
GAP = 0.05
"""Leakage gap from which a random split flatters a head."""
OVERFITTED = 2.0
"""Loss of held-out rows, as a multiple of that of training rows."""
MISCALIBRATED = 0.05
"""Mean distance of expected and true cosines from which they say little."""
UNEVEN = 0.1
"""Difference of the cosines of two folds."""
EDGE = 0.02
"""Share of a range that counts as its edge."""

GRIDS = ("knn", "ridge")
"""Heads whose history is all that was tried, from the least to the greatest.

Others record the steps of an optimiser, or the best of each epoch, whose ends are no limits of a search.
"""

SIMPLE = ("mean", "nearest", "knn", "ridge", "clip", "linear", "kernel")
"""Heads from the simplest on; every other one is less simple."""


def below_floor(material: Material) -> Iterator[Finding]:
    """Runs that are no better than the average prompt."""
    for run in _board(material).runs:
        floor, inside = run.metrics.get("floor"), run.metrics.get("ci95")
        if run.head == "mean" or floor is None:
            continue
        if run.metrics["cosine"] < floor:
            yield Finding(
                "problem",
                f"{run.name} has a cosine of {run.metrics['cosine']:.4f}, below the floor of {floor:.4f}",
                "The average prompt for every image does better. Take another head, or other features.",
            )
        elif inside is not None and inside[0] < floor:
            yield Finding(
                "caution",
                f"the interval of {run.name} begins at {inside[0]:.4f}, below the floor of {floor:.4f}",
                "It may be no better than the average prompt; more rows would tell.",
            )


def few_groups(material: Material) -> Iterator[Finding]:
    """Held-out rows that are few groups."""
    board = _board(material)
    effective = board.effective_groups
    if effective is None:
        raise NotCheckedError("the runs are of an older version")
    if effective < FEW_GROUPS:
        yield Finding(
            "caution",
            f"the held-out rows are like {effective:.1f} groups of equal size, fewer than {FEW_GROUPS}",
            f"Intervals are too narrow. {_more_groups(board)}",
        )


def large_group(material: Material) -> Iterator[Finding]:
    """One group that has a large part of the rows."""
    board = _board(material)
    split = board.split
    largest, rows = split.get("largest_group"), split["validation"] + split["train"]
    rows = split["validation"] if split.get("folds", 1) > 1 else rows
    if largest is None:
        raise NotCheckedError("the runs are of an older version")
    if largest > LARGE_GROUP * rows:
        yield Finding(
            "caution",
            f"one group of near-identical rows has {largest} of {rows} rows",
            "The score depends on where it falls; `dedup()` shows what is in it. " + _more_groups(board),
        )


def leaking_split(material: Material) -> Iterator[Finding]:
    """Scores by a split that divides near-identical rows."""
    board = _board(material)
    runs = [*board.runs, *board.others]
    for run in runs:
        straddling = run.split.get("straddling", 0)
        if run.split["strategy"] == "random" or straddling:
            yield Finding(
                "problem",
                f"{run.name} was scored by the split {run.split['strategy']}, which divides "
                f"{counted(straddling, 'group', 'groups')} of {_alike(run)} rows",
                "The score is too high. Fit without `split`: by default groups stay together.",
            )
    gaps = [(run, run.metrics.get("leakage_gap")) for run in board.runs]
    large = [f"{run.name} {gap:.3f}" for run, gap in gaps if gap is not None and gap > GAP]
    if large:
        yield Finding(
            "remark",
            f"on a random split these runs would score higher: {', '.join(large)}",
            "They remember near-identical rows. Do not compare their scores with those of random splits.",
        )


def unsure_best(material: Material) -> Iterator[Finding]:
    """A best run that may be no better than the next."""
    best, *others = _several(material)
    known = ((run, paired(best, run)) for run in others)
    second, found = next(((run, each) for run, each in known if not _same(each)), (others[0], None))
    if found is None or found.ci95 is None:
        raise NotCheckedError("their held-out predictions cannot be compared, or are the same")
    low, high = found.ci95
    if low <= 0:
        half = (high - low) / 2
        times = math.ceil((half / found.cosine) ** 2) if found.cosine > 0 else None
        more = f"; about {times} times as many held-out rows would tell" if times else ""
        yield Finding(
            "caution",
            f"{best.name} is {found.cosine:.4f} better than {second.name}, with an interval from {low:.4f} "
            f"to {high:.4f} that includes 0{more}",
            "Do not prefer one for its score. " + _more_rows(material),
        )


def simpler_head(material: Material) -> Iterator[Finding]:
    """A simpler head that is as good as the best."""
    best, *others = _several(material)
    simpler = sorted(
        (run for run in others if _simplicity(run) < _simplicity(best)), key=lambda run: _simplicity(run)
    )
    for run in simpler:
        found = paired(best, run)
        if found is not None and found.ci95 is not None and found.ci95[0] <= 0:
            yield Finding(
                "remark",
                f"{run.name} is simpler than {best.name}, and a difference of {found.cosine:.4f} "
                f"({found.ci95[0]:.4f} to {found.ci95[1]:.4f}) is not told from none",
                f"{run.head} fits and predicts faster, and does as well as far as these rows tell.",
            )
            return


def edge_of_search(material: Material) -> Iterator[Finding]:
    """Settings that were chosen at the end of what was tried."""
    for run in _board(material).runs:
        if run.head not in GRIDS:
            continue
        for name, value, end in edges(run.settings, _history(run)):
            other = "smaller" if end == "least" else "larger"
            yield Finding(
                "caution",
                f"{run.name} chose {name} = {value:.4g}, the {end} that was tried",
                f"A {other} one may be better; `fit()` takes it as a setting.",
            )
    yield from _edges_of_studies(material)


def edges(settings: dict[str, Any], history: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float, str]]:
    """Find the settings whose chosen value is the least or the greatest in the history.

    Only settings that the history has several values of count, and not those that are counted up, like
    epochs; nor a value of 0, below which there is nothing.
    """
    for name, value in settings.items():
        tried = {row[name] for row in history if isinstance(row.get(name), int | float)}
        if isinstance(value, bool) or not isinstance(value, int | float) or len(tried) < 3 or value == 0:
            continue
        if math.isclose(value, min(tried), rel_tol=1e-6) and (value > 1 or isinstance(value, float)):
            yield name, float(value), "least"
        elif math.isclose(value, max(tried), rel_tol=1e-6):
            yield name, float(value), "greatest"


def _edges_of_studies(material: Material) -> Iterator[Finding]:
    from img2prompt_cache.heads.space import LogUniform, Uniform, Whole

    for study in material.studies:
        try:
            best = study.best
        except Img2PromptError:
            continue
        for name, each in study.space.items():
            value = best.settings.get(name)
            if not isinstance(each, LogUniform | Uniform | Whole) or not isinstance(value, int | float):
                continue
            place = (value - each.low) / (each.high - each.low)
            if isinstance(each, LogUniform):
                place = math.log(value / each.low) / math.log(each.high / each.low)
            if not EDGE < place < 1 - EDGE and value > 0:
                end = "low" if place <= EDGE else "high"
                yield Finding(
                    "caution",
                    f"the best trial of {study.file.stem} has {name} = {value:.4g}, at the {end} end of the "
                    f"search from {each.low:.4g} to {each.high:.4g}",
                    "Search a wider range with `tune()` and `space`.",
                )


def overfitted(material: Material) -> Iterator[Finding]:
    """Heads that know their training rows much better than others."""
    for run, history in _trained(material):
        best = min(history, key=lambda row: row["val_loss"])
        if best["train_loss"] > 0 and best["val_loss"] > OVERFITTED * best["train_loss"]:
            yield Finding(
                "caution",
                f"in its best epoch {run.name} has a loss of {best['train_loss']:.4g} on training rows and "
                f"{best['val_loss']:.4g} on rows that it did not see",
                "More dropout or weight decay, a smaller head, or more pairs may help.",
            )


def unfinished_training(material: Material) -> Iterator[Finding]:
    """Heads whose training ended at its limit while they still improved."""
    for run, history in _trained(material):
        most = run.settings.get("max_epochs")
        best = min(range(len(history)), key=lambda at: history[at]["val_loss"])
        if isinstance(most, int) and len(history) >= most and best >= len(history) - 1:
            yield Finding(
                "caution",
                f"the last of the {most} epochs of {run.name} was its best",
                "It had not finished; give it more epochs with `settings` (max_epochs).",
            )


def uneven_folds(material: Material) -> Iterator[Finding]:
    """Folds with very different scores."""
    runs = [run for run in _board(material).runs if len(run.fold_metrics) > 1]
    if not runs:
        raise NotCheckedError("no run was scored by folds")
    cosines = [fold["cosine"] for fold in runs[0].fold_metrics]
    if max(cosines) - min(cosines) > UNEVEN:
        yield Finding(
            "caution",
            f"the folds of {runs[0].name} have cosines from {min(cosines):.3f} to {max(cosines):.3f}",
            "The rows differ much from group to group; a single hold-out would say little.",
        )


def expected_cosines(material: Material) -> Iterator[Finding]:
    """Expected cosines that are far from the true ones, or tell good predictions from bad ones poorly."""
    known = [
        (run, run.expected)
        for run in _board(material).runs
        if run.expected is not None and run.expected.get("calibration_error") is not None
    ]
    if not known:
        raise NotCheckedError("no run says which cosine to expect of each prediction")
    for run, expected in known:
        error, order = expected["calibration_error"], expected.get("spearman")
        if error is not None and error > MISCALIBRATED:
            yield Finding(
                "caution",
                f"expected cosines of {run.name} are {error:.3f} off on average",
                "Take them for an order, not for a level.",
            )
        if order is not None and order < UNORDERED:
            yield Finding(
                "remark",
                f"expected cosines of {run.name} have a rank correlation of {order:.2f} with the true ones",
                "They hardly tell good predictions from bad ones.",
            )


def idle_members(material: Material) -> Iterator[Finding]:
    """Members of a blend that get no weight."""
    blends = [run for run in _board(material).runs if run.settings.get("weights")]
    if not blends:
        raise NotCheckedError("there is no blend")
    for run in blends:
        weights, members = run.settings["weights"], run.settings.get("members") or ()
        names = [
            str(member.get("run", member.get("head", "")))
            for member, weight in zip(members, weights, strict=False)
            if weight == 0
        ]
        if names:
            yield Finding(
                "remark",
                f"{counted(len(names), 'member', 'members')} of {run.name} got no weight: {', '.join(names)}",
                "Leave them out: the blend is smaller and predicts the same.",
            )


def unreadable_runs(material: Material) -> Iterator[Finding]:
    """Runs that cannot be read, or that are left out of the leaderboard."""
    board = _board(material)
    for folder, why in board.unreadable.items():
        yield Finding("problem", f"{folder.name}: {why}", "Remove it, or fit it again.")
    for why, left_out in board.left_out.items():
        names = ", ".join(run.name for run in left_out)
        yield Finding(
            "remark",
            f"scored on another split or target, so not compared: {names} ({why})",
            "Runs are compared only on the same held-out rows.",
        )


def _same(found: Difference | None) -> bool:
    """Whether two runs have the same cosine on every row, as one that was fitted twice has."""
    return found is not None and found.cosine == 0 and found.ci95 in (None, (0, 0))


def _by_folds(board: Leaderboard) -> bool:
    return board.split.get("folds", 1) > 1


def _more_groups(board: Leaderboard) -> str:
    """Advise what gives more groups."""
    if _by_folds(board):
        return "Every row is held out already: only more different prompts give more groups."
    return "Use folds, or get more different prompts."


def _more_rows(material: Material) -> str:
    """Advise what gives more held-out rows."""
    if _by_folds(_board(material)):
        return "Every row is held out already: only more rows would tell."
    return "By folds every row would count."


def _alike(run: Run) -> str:
    """Say what rows of a group are: of a random split of many rows, groups are clusters."""
    clusters = run.split.get("clustered", False) and run.split["strategy"] == "random"
    return "similar" if clusters else "near-identical"


def _board(material: Material) -> Leaderboard:
    if material.board is None or not material.board.runs:
        raise NotCheckedError("there is no run")
    return material.board


def _several(material: Material) -> list[Run]:
    runs = _board(material).runs
    if len(runs) < 2:
        raise NotCheckedError("there is only one run")
    return runs


def _simplicity(run: Run) -> int:
    return SIMPLE.index(run.head) if run.head in SIMPLE else len(SIMPLE)


def _history(run: Run) -> list[dict[str, Any]]:
    try:
        return list(run.history)
    except Img2PromptError:
        return []


def _trained(material: Material) -> list[tuple[Run, list[dict[str, Any]]]]:
    """Find the runs that were trained by epochs, with the epochs that have both losses."""
    found = [(run, losses) for run in _board(material).runs if (losses := _losses(run))]
    if not found:
        raise NotCheckedError("no run was trained by epochs")
    return found


def _losses(run: Run) -> list[dict[str, Any]]:
    """The epochs of a run that have both losses."""
    return [
        row
        for row in _history(run)
        if isinstance(row.get("train_loss"), int | float) and isinstance(row.get("val_loss"), int | float)
    ]
