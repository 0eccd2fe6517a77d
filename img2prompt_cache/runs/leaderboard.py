"""Comparing runs: a leaderboard of those that were scored on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics.bootstrap import paired
from img2prompt_cache.runs.held_out import Validation, load_validation
from img2prompt_cache.runs.run import Run, load_run

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Runs of one split and one target, best first.

    Attributes
    ----------
    split : dict
        Of all of them.
    runs : list of (folder, Run)
        By mean cosine, highest first.
    others : list of pathlib.Path
        Runs of another split or target, left out.
    """

    split: dict[str, Any]
    runs: list[tuple[Path, Run]]
    others: list[Path]


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher a run's mean cosine is than another's on the same rows, and the 95 % interval of that.

    The interval is None where all rows are one group.
    """

    cosine: float
    ci95: tuple[float, float] | None


def compare(folders: Sequence[Path], against: Path | None = None) -> Leaderboard:
    """Put runs in order, those only that may be compared.

    Parameters
    ----------
    folders : sequence of pathlib.Path
        Runs in any order; one that is named twice counts once.
    against : pathlib.Path, optional
        A run that is in any case among them, and whose split counts; that of the newest if absent.

    Raises
    ------
    UsageError
        If there is no run.
    """
    distinct = {folder.resolve(): folder for folder in [*folders, *([against] if against else [])]}
    runs = {folder: load_run(folder) for folder in distinct.values()}
    if not runs:
        raise UsageError("there is no run to compare; make one with `img2prompt-cache fit`")
    newest = max(runs.values(), key=lambda run: run.created)
    wanted = runs[distinct[against.resolve()]] if against else newest
    alike = [(folder, run) for folder, run in runs.items() if _key(run) == _key(wanted)]
    return Leaderboard(
        split=wanted.split,
        runs=sorted(alike, key=lambda pair: -pair[1].metrics["cosine"]),
        others=[folder for folder, run in runs.items() if _key(run) != _key(wanted)],
    )


def differences(board: Leaderboard, against: Path) -> list[Difference | None]:
    """Compare every run of a leaderboard with one of them, row by row.

    Returns
    -------
    list of Difference or None
        In the order of `board.runs`; None for the run itself.

    Raises
    ------
    Img2PromptError
        If the validation predictions of a run are damaged, or are not of the rows of the other.
    """
    runs = {folder.resolve(): run for folder, run in board.runs}
    reference = load_validation(against, runs[against.resolve()])
    found: list[Difference | None] = []
    for folder, run in board.runs:
        if folder.resolve() == against.resolve():
            found.append(None)
            continue
        cosines = cosines_of(folder, run, reference.ids)
        found.append(Difference(*paired(cosines, reference.cosine, reference.groups)))
    return found


def cosines_of(folder: Path, run: Run, ids: Sequence[str]) -> NDArray[np.float64]:
    """Read the cosine of each held-out row of a run, in the order of `ids`.

    Raises
    ------
    Img2PromptError
        If these are not its held-out rows.
    """
    held: Validation = load_validation(folder, run)
    place = {name: row for row, name in enumerate(held.ids)}
    if place.keys() != {*ids}:
        raise Img2PromptError(
            f"the validation predictions of {folder} are of other rows than its split held out; fit it again"
        )
    return held.cosine[[place[name] for name in ids]]


def _key(run: Run) -> tuple[str, str]:
    return str(run.split["digest"]), str(sorted(run.target.fingerprint.items()))
