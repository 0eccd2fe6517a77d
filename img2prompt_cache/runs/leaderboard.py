"""Comparing runs: a leaderboard of those that were scored on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.cache.manifest_file import DEFAULT_CACHE, load_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics.bootstrap import holm, p_value, paired_difference, split_widening
from img2prompt_cache.runs.breakdown import Cell, breakdown
from img2prompt_cache.runs.held_out import cosines_of, load_validation
from img2prompt_cache.runs.names import find_runs, joined_name, open_run
from img2prompt_cache.runs.record import SplitRecord, same_split
from img2prompt_cache.runs.run import AnyRun, Run
from img2prompt_cache.tables import Records, html_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher a run's mean cosine is than another's on the same rows, with its 95 % interval and p.

    The interval also covers heads fitted on other training rows; see `bootstrap.split_widening`. `p` is that
    of no difference, two-sided, adjusted for the number of runs in the table by Holm's procedure. Both are
    None where all rows are one group.
    """

    cosine: float
    ci95: tuple[float, float] | None
    p: float | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Leaderboard:
    """Runs of one split and one target, best first.

    Attributes
    ----------
    split : SplitRecord
        The split that all runs share.
    runs : list of Run
        By mean cosine, highest first.
    others : list of Run
        Runs of another split or target, left out.
    unreadable : dict of pathlib.Path to str
        Runs of the cache that are damaged, and how.
    reference : Run or None
        The run that the others are held against.
    differences : list of Difference or None
        Of each run from the reference; None for the reference itself, and for all where there is none.
    by : str or None
        What the held-out rows were grouped by.
    cells : list of Cell
        Mean cosines on each group of rows.
    outdated : dict of pathlib.Path to str
        Of `runs` and `others`, those that were fitted on rows of which some have changed since: their images
        or prompts were replaced or removed. What has changed, by the folder of the run.
    """

    split: SplitRecord
    runs: list[Run]
    others: list[Run] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    reference: Run | None = None
    differences: list[Difference | None] = field(default_factory=list)
    by: str | None = None
    cells: list[Cell] = field(default_factory=list)
    outdated: dict[Path, str] = field(default_factory=dict)

    @property
    def best(self) -> Run:
        """The run with the highest mean cosine."""
        return self.runs[0]

    def records(self) -> Records:
        """Give a record for each run: its name, what it was fitted on, its metrics and its difference."""
        found = Records()
        for run, difference in zip(self.runs, self.differences, strict=True):
            low, high = run.metrics.get("ci95") or (None, None)
            record: dict[str, Any] = {
                "run": run.name,
                "head": run.head,
                "features": joined_name([column.spec for column in run.features]),
                "cosine": run.metrics["cosine"],
                "ci95_low": low,
                "ci95_high": high,
                "cosine_mean_prompt": run.metrics.get("cosine_mean_prompt"),
            }
            if self.reference is not None:
                inside = difference.ci95 if difference else None
                record |= {
                    "difference": difference.cosine if difference else None,
                    "difference_low": inside[0] if inside else None,
                    "difference_high": inside[1] if inside else None,
                    "difference_p": difference.p if difference else None,
                }
            found.append(
                {
                    **record,
                    "mse": run.metrics["mse"],
                    "r@1": run.metrics["r@1"],
                    "r@5": run.metrics["r@5"],
                    "r@10": run.metrics.get("r@10"),
                    "bank": run.metrics.get("bank"),
                    "floor": run.metrics.get("floor"),
                    "leakage_gap": run.metrics.get("leakage_gap"),
                    "groups": run.metrics.get("groups"),
                    "effective_groups": run.metrics.get("effective_groups"),
                    "n": run.metrics["n"],
                    "seconds": run.seconds,
                    "parameters": run.parameters,
                    "rows_per_second": run.predict_rows_per_second,
                }
            )
        return found

    def to_pandas(self) -> pd.DataFrame:
        """Give a data frame with a row for each run, best first; see `records` for its columns.

        Raises
        ------
        Img2PromptError
            If pandas is not installed.
        """
        return self.records().to_pandas()

    @property
    def effective_groups(self) -> float | None:
        """Effective number of groups of the held-out rows, on which every interval rests.

        None where all runs are of older versions; see `img2prompt_cache.numerics.bootstrap.effective_groups`.
        """
        return next(filter(None, (run.metrics.get("effective_groups") for run in self.runs)), None)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        best = f", best {self.best.name} at cosine {self.best.metrics['cosine']:.4f}" if self.runs else ""
        return f"Leaderboard({len(self)} runs{best})"

    def _repr_html_(self) -> str:
        records = self.records()
        names = list(records[0]) if records else []
        rows = [[record[name] for name in names] for record in records]
        return html_table(names, rows, self.title)

    @property
    def title(self) -> str:
        """One line on the split."""
        rows, name = self.split["validation"], f"split {self.split['strategy']}, seed {self.split['seed']}"
        counts = "" if self.effective_groups is None else f", like {self.effective_groups:.1f} equal groups"
        if self.split.get("folds", 1) > 1:
            return f"{name}: {rows} rows in {self.split['folds']} folds{counts}"
        return f"{name}: {rows} rows held out of {self.split['train'] + rows}{counts}"


def compare(
    cache: str | Path | Cache = DEFAULT_CACHE,
    runs: Sequence[AnyRun] | None = None,
    against: AnyRun | None = None,
    by: str | None = None,
) -> Leaderboard:
    """Rank the runs that share one split and one target, best first.

    Parameters
    ----------
    cache : str, pathlib.Path or Cache
        Where runs are found by their names.
    runs : sequence of Run, str or pathlib.Path, optional
        In any order; one that is named twice counts once. Every run of the cache if None; of these, damaged
        ones are left out.
    against : Run, str or pathlib.Path, optional
        A run to compare the others with, row by row. It is always included, and only runs on its split are
        ranked; if None, those on the split of the newest run.
    by : {"length", "cluster"}, optional
        Also give the mean cosine by length of the prompt in words, or by cluster of prompts.

    Returns
    -------
    Leaderboard

    Raises
    ------
    UsageError
        If there is no run, or one that is named is not there.
    Img2PromptError
        If a run that is named is damaged, or was scored on other rows than the one it is held against.

    Examples
    --------
    >>> import img2prompt_cache as ipc
    >>> board = ipc.compare("cache/default", against="ridge-resnet50-01")  # doctest: +SKIP
    >>> board.to_pandas()[["run", "cosine", "difference"]]  # doctest: +SKIP
    """
    folder = cache.folder if isinstance(cache, Cache) else Path(cache)
    reference = None if against is None else open_run(against, folder)
    unreadable: dict[Path, str] = {}
    if runs:
        found = [open_run(run, folder) for run in runs]
    else:
        found, unreadable = _readable(folder, rows=bool(against or by))
    distinct = {run.folder.resolve(): run for run in [*found, *([reference] if reference else [])]}
    if not distinct:
        load_manifest(folder)  # says so where there is no cache at all
        raise UsageError(f"{folder} has no run to compare; make one with `fit()`")
    wanted = reference or max(distinct.values(), key=lambda run: run.created)
    alike = sorted(
        (run for run in distinct.values() if _comparable(run, wanted)),
        key=lambda run: -run.metrics["cosine"],
    )
    return Leaderboard(
        split=wanted.split,
        runs=alike,
        others=[run for run in distinct.values() if not _comparable(run, wanted)],
        unreadable=unreadable,
        reference=reference,
        differences=differences(alike, reference) if reference else [None] * len(alike),
        by=by,
        cells=breakdown(alike, by) if by else [],
        outdated={run.folder: changed for run in distinct.values() if (changed := run.outdated)},
    )


def _readable(cache: Path, *, rows: bool) -> tuple[list[Run], dict[Path, str]]:
    """Open the runs of a cache that can be read, with held-out rows if `rows`; say why not others."""
    found, unreadable = [], {}
    for folder in find_runs(cache):
        try:
            run = Run.load(folder)
            if rows:
                load_validation(folder, run)
        except Img2PromptError as error:
            unreadable[folder] = str(error)
        else:
            found.append(run)
    return found, unreadable


def differences(runs: Sequence[Run], reference: Run) -> list[Difference | None]:
    """Compare every run with one of them, row by row.

    Returns
    -------
    list of Difference or None
        In the order of `runs`; None for the reference itself.

    Raises
    ------
    Img2PromptError
        If the validation predictions of a run are damaged, or are not of the rows of the other.
    """
    held = load_validation(reference.folder, reference)
    rows = reference.split["validation"] + reference.split["train"]
    factor = split_widening(held.fold, rows)
    found: list[tuple[float, tuple[float, float] | None] | None] = []
    p: list[float | None] = []
    for run in runs:
        if run.folder.resolve() == reference.folder.resolve():
            found.append(None)
            p.append(None)
            continue
        cosines = cosines_of(run.folder, run, held.ids)
        found.append(paired_difference(cosines, held.cosine, held.groups, widening=factor))
        p.append(p_value(cosines - held.cosine, held.groups, factor))
    return [each and Difference(*each, adjusted) for each, adjusted in zip(found, holm(p), strict=True)]


def _comparable(run: Run, wanted: Run) -> bool:
    return same_split(run.split, wanted.split) and run.target.fingerprint == wanted.target.fingerprint
