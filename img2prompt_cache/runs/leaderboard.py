"""Comparing runs: a leaderboard of those that were scored on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE, load_manifest
from img2prompt_cache.cache.opening import folder_of
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.runs.board import Leaderboard
from img2prompt_cache.runs.board_file import require_free, save_board
from img2prompt_cache.runs.breakdown import breakdown
from img2prompt_cache.runs.differences import differences
from img2prompt_cache.runs.entries import Entry, entries_of
from img2prompt_cache.runs.held_out import load_validation
from img2prompt_cache.runs.left_out import why_left_out
from img2prompt_cache.runs.names import find_runs, find_series, open_run
from img2prompt_cache.runs.run import AnyRun, Run


def compare(
    cache: str | Path | Cache = DEFAULT_CACHE,
    runs: Sequence[AnyRun] | None = None,
    against: AnyRun | None = None,
    by: str | None = None,
    *,
    out: str | Path | None = None,
    format: str | None = None,
    overwrite: bool = False,
) -> Leaderboard:
    """Rank the runs that share one split and one target, best first.

    The runs that `fit_seeds` made together are one entry.

    Parameters
    ----------
    cache : str, pathlib.Path or Cache
        Where runs are found by their names.
    runs : sequence of Run, str or pathlib.Path, optional
        In any order; one that is named twice counts once, and the name of a fit with several seeds stands
        for all of its runs. Every run of the cache if None; of these, damaged ones are left out.
    against : Run, str or pathlib.Path, optional
        A run, or a fit with several seeds, to compare the others with, row by row. It is always included, and
        only what was scored on its splits is ranked; if None, on those of the newest run.
    by : {"length", "cluster"}, optional
        Also give the mean cosine by length of the prompt in words, or by cluster of prompts.
    out : str or pathlib.Path, optional
        Also write the table to this file, as a person puts it into a paper; a ``.csv`` has all figures.
    format : {"md", "csv", "latex"}, optional
        Of that file; if None, by its extension: ``.md``, ``.csv`` or ``.tex``.
    overwrite : bool
        Replace the file.

    Returns
    -------
    Leaderboard

    Raises
    ------
    UsageError
        If there is no run, or one that is named is not there, or the file may not be written.
    Img2PromptError
        If a run that is named is damaged, or was scored on other rows than the one it is held against.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> board = ipc.compare("cache/default", against="ridge-resnet50-01")  # doctest: +SKIP
    >>> board.to_pandas()[["run", "cosine", "difference"]]  # doctest: +SKIP
    """
    if out is not None:
        require_free(Path(out), format, overwrite=overwrite)
    board = rank_runs(cache, runs, against, by)
    if out is not None:
        save_board(board, Path(out), format)
    return board


def rank_runs(
    cache: str | Path | Cache,
    runs: Sequence[AnyRun] | None = None,
    against: AnyRun | None = None,
    by: str | None = None,
    *,
    apart: bool = False,
) -> Leaderboard:
    """Rank runs as `compare` does; where `apart`, each run of a fit with several seeds is its own entry."""
    folder = folder_of(cache)
    named = None if against is None else open_runs(against, folder)
    unreadable: dict[Path, str] = {}
    if runs:
        found = [each for run in runs for each in open_runs(run, folder)]
    else:
        found, unreadable = _readable(folder, rows=bool(against or by))
    distinct = {run.folder.resolve(): run for run in [*found, *(named or [])]}
    if not distinct:
        load_manifest(folder)  # says so where there is no cache at all
        raise UsageError(f"{folder} has no run to compare; make one with `fit()`")
    entries = [Entry((run,)) for run in distinct.values()] if apart else entries_of(distinct.values())
    reference = None
    if named:
        first = named[0].folder.resolve()
        reference = next(e for e in entries if first in {run.folder.resolve() for run in e.runs})
    wanted = reference or max(entries, key=lambda entry: entry.created)
    alike = sorted((each for each in entries if each.comparable(wanted)), key=lambda entry: -entry.cosine)
    apart_from_it = [each for each in entries if not each.comparable(wanted)]
    return Leaderboard(
        entries=alike,
        others=[run for each in apart_from_it for run in each.runs],
        reasons={run.folder: why_left_out(each, wanted) for each in apart_from_it for run in each.runs},
        unreadable=unreadable,
        reference=reference,
        differences=differences(alike, reference) if reference else [None] * len(alike),
        by=by,
        cells=breakdown([each.runs for each in alike], by) if by else [],
        outdated={run.folder: changed for run in distinct.values() if (changed := run.outdated)},
    )


def open_runs(run: AnyRun, cache: Path) -> list[Run]:
    """Open a run that is named in any way, or all runs of the fit with several seeds of that name.

    Raises
    ------
    UsageError, Img2PromptError
        As `open_run`.
    """
    try:
        return [open_run(run, cache)]
    except UsageError:
        found = find_series(run, cache) if isinstance(run, str) else []
        if not found:
            raise
        return found


def _readable(cache: Path, *, rows: bool) -> tuple[list[Run], dict[Path, str]]:
    """Open the runs of a cache that can be read, with held-out rows if `rows`; say why not others."""
    found, unreadable = [], {}
    for folder in find_runs(cache):
        try:
            run = Run.load(folder)
            if rows or run.series:
                load_validation(folder, run)
        except Img2PromptError as error:
            unreadable[folder] = str(error)
        else:
            found.append(run)
    return found, unreadable
