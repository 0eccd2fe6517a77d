"""Runs fitted again: what a fit was asked for is recorded, so that it can be asked for once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.fitting.config import FitConfig
from img2prompt_cache.fitting.run_rows import load_rows
from img2prompt_cache.fitting.single import fit_head
from img2prompt_cache.progress import Callback, note
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.record import same_split
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from img2prompt_cache.cache.reader import Cache


def refit_members(
    cache: Cache, runs: Sequence[Run], device: str, tell: Callback, memory: str | int | None = None
) -> list[Run]:
    """Fit those members of a blend again that are outdated, so that all have one split of the cache as it is.

    A run is outdated if rows that it was fitted on have changed since, if its rows are not found in the cache
    any more, or if its split is not that of the newest member.

    Parameters
    ----------
    cache : Cache
    runs : sequence of Run
    device : str
        Where heads that compute with torch are fitted.
    tell : callable
        Told which runs are fitted again, and why.
    memory : str or int, optional
        How much memory rows may take, as for `fit`.

    Returns
    -------
    list of Run
        In the order of `runs`; those that were fitted again are new runs of the cache, the old ones stay.

    Raises
    ------
    UsageError
        If an outdated run does not say what was asked for: it is of an older version, or made of runs.
    Img2PromptError
        As `fit_head`.
    """
    found = []
    for run in runs:
        why = _outdated(cache, run)
        found.append(_again(cache, run, why, device, tell, memory) if why else run)
    if not found:
        return found
    newest = max(found, key=lambda run: run.created)
    return [
        run
        if same_split(run.split, newest.split)
        else _again(cache, run, f"it was scored on another split than {newest.name}", device, tell, memory)
        for run in found
    ]


def _outdated(cache: Cache, run: Run) -> str:
    """Say why a run is outdated; nothing if it is not."""
    if run.outdated:
        return run.outdated
    try:
        load_rows(cache, run, load_validation(run.folder, run), "", hold=False)
    except Img2PromptError:
        return "the cache does not have the rows and columns that it was fitted on"
    return ""


def _again(cache: Cache, run: Run, why: str, device: str, tell: Callback, memory: str | int | None) -> Run:
    if not run.request or "teacher" in run.request:
        raise UsageError(
            f"`refit_members`: {run.name} is outdated ({why}), and does not say what it was fitted with: it "
            "is made of runs, or of an older version; fit it again with `fit()`",
            parameter="refit_members",
        )
    made = fit_head(cache, replace(config_of(run, device), memory=memory), tell=tell)
    note(tell, f"{run.name} is outdated ({why}): fitted again as {made.name}")
    return made


def config_of(run: Run, device: str = "auto") -> FitConfig:
    """Give what a run was asked for, on the same columns.

    Raises
    ------
    Img2PromptError
        If its record is damaged.
    """
    known = {each.name for each in fields(FitConfig)}
    asked: dict[str, Any] = {name: value for name, value in run.request.items() if name in known}
    asked |= {name: Path(asked[name]) for name in ("only",) if asked.get(name)}
    try:
        asked["extra"] = tuple(map(Path, asked.get("extra", ())))
        features = tuple(use.spec for use in run.features)
        return replace(FitConfig(**asked), features=features, encoder=run.target.spec, device=device)
    except TypeError as error:
        raise Img2PromptError(
            f"run.json of {run.name} is not what was saved: {error}; fit it again"
        ) from None
