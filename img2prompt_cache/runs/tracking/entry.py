"""An entry: what a tracker is told of one fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.runs.folder import HISTORY
from img2prompt_cache.runs.run_file import INFO

if TYPE_CHECKING:
    from img2prompt_cache.runs.run import Run


@dataclass(frozen=True, slots=True)
class Entry:
    """One fit: a run, or a trial of a search.

    Attributes
    ----------
    name : str
        Of the run; of a trial, that of the study with its number.
    kind : {"run", "trial"}
    group : str
        What it is compared with first: the head of a run, the study of a trial.
    settings : mapping of str to str, int, float or bool
    metrics : mapping of str to float
    curves : tuple of mapping of str to float
        What was recorded while it was fitted, a step each: losses by epoch, or scores by candidate.
    files : tuple of pathlib.Path
        Small files to keep beside it.
    """

    name: str
    kind: str
    group: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    curves: tuple[Mapping[str, float], ...] = ()
    files: tuple[Path, ...] = ()


def run_entry(run: Run) -> Entry:
    """Tell of a run: settings, columns, split, every metric with its interval, curves, `run.json`."""
    about = {
        "head": run.head,
        "features": [column.spec for column in run.features],
        "target": run.target.spec,
        "split": run.split["strategy"],
        "split_seed": run.split["seed"],
        "folds": run.split["folds"],
        "rows": run.rows,
        **run.settings,
    }
    files = [run.folder / name for name in (INFO, HISTORY)]
    return Entry(
        name=run.name,
        kind="run",
        group=run.head,
        settings=plain_settings(about),
        metrics={**_numbers(run.metrics), "seconds": run.seconds},
        curves=tuple(_numbers(step) for step in run.history),
        files=tuple(file for file in files if file.is_file()),
    )


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn settings into values that every tracker takes: what is no text or number becomes JSON."""
    return {
        name: value if isinstance(value, str | int | float) else json.dumps(value, default=str)
        for name, value in settings.items()
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep what is a number, and both ends of intervals."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, int | float):
            found[name] = float(value)
        elif "ci95" in name and value is not None:
            found |= {f"{name}_low": float(value[0]), f"{name}_high": float(value[1])}
    return found
