"""Comparing runs: a leaderboard of those that were scored on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from img2prompt_cache.errors import UsageError
from img2prompt_cache.runs import Run, load_run


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


def compare(folders: Sequence[Path]) -> Leaderboard:
    """Put runs in order, those only that may be compared.

    Parameters
    ----------
    folders : sequence of pathlib.Path
        Runs in any order; one that is named twice counts once. The split of the newest one counts.

    Raises
    ------
    UsageError
        If there is no run.
    """
    distinct = {folder.resolve(): folder for folder in folders}
    runs = [(folder, load_run(folder)) for folder in distinct.values()]
    if not runs:
        raise UsageError("there is no run to compare; make one with `img2prompt-cache fit`")
    newest = max((run for _, run in runs), key=lambda run: run.created)
    alike = [(folder, run) for folder, run in runs if _key(run) == _key(newest)]
    return Leaderboard(
        split=newest.split,
        runs=sorted(alike, key=lambda pair: -pair[1].metrics["cosine"]),
        others=[folder for folder, run in runs if _key(run) != _key(newest)],
    )


def _key(run: Run) -> tuple[str, str]:
    return str(run.split["digest"]), str(sorted(run.target.fingerprint.items()))
