"""Entries of a leaderboard: a run, or the runs of one fit with several seeds taken together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from img2prompt_cache.numerics.bootstrap import connected_groups, effective_groups, interval, split_widening
from img2prompt_cache.runs.held_out import cosines_of, load_validation
from img2prompt_cache.runs.record import SplitRecord, same_split
from img2prompt_cache.runs.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class HeldRows:
    """The held-out rows of a split, each with its mean cosine over the runs that were scored on it.

    `ids`; `groups`, `fold`, int64 (n,); `cosine`, float64 (n,). `total` is the number of all rows of the
    split, those that are never held out included.
    """

    split: SplitRecord
    total: int
    ids: list[str]
    groups: NDArray[np.int64]
    fold: NDArray[np.int64]
    cosine: NDArray[np.float64]


class Counts(TypedDict):
    """Distinct rows, their groups, and how many equal groups would tell as much; None in older runs."""

    n: int
    groups: int | None
    effective_groups: float | None


@dataclass(frozen=True, eq=False)
class Entry:
    """A run, or several that differ in nothing but their seeds.

    Attributes
    ----------
    runs : tuple of Run
        One at least, of one target; several if `fit_seeds` made them together.
    """

    runs: tuple[Run, ...]

    @property
    def run(self) -> Run:
        """The first run."""
        return self.runs[0]

    @property
    def name(self) -> str:
        """Name of the run; of several, the name that they share."""
        return self.run.name if len(self.runs) == 1 else series_name(self.run)

    @property
    def created(self) -> str:
        """When the newest run was made."""
        return max(run.created for run in self.runs)

    @property
    def head_seeds(self) -> list[int]:
        """Seeds of the heads, ascending; none of a head that has no seed."""
        found = {run.settings.get("seed") for run in self.runs}
        return sorted(seed for seed in found if isinstance(seed, int))

    @property
    def split_seeds(self) -> list[int]:
        """Seeds of the splits, ascending."""
        return sorted({run.split["seed"] for run in self.runs})

    @cached_property
    def by_split(self) -> list[list[Run]]:
        """The runs, those of one split together."""
        found: list[list[Run]] = []
        for run in self.runs:
            for others in found:
                if same_split(run.split, others[0].split):
                    others.append(run)
                    break
            else:
                found.append([run])
        return found

    @cached_property
    def held(self) -> list[HeldRows]:
        """The held-out rows of each split.

        Raises
        ------
        Img2PromptError
            If the predictions of a run are damaged, or not of the rows that its split held out.
        """
        found = []
        for runs in self.by_split:
            first = load_validation(runs[0].folder, runs[0])
            others = [cosines_of(run.folder, run, first.ids) for run in runs[1:]]
            split = runs[0].split
            mean = np.mean([first.cosine, *others], axis=0)
            total = split["train"] + split["validation"]
            found.append(HeldRows(split, total, first.ids, first.groups, first.fold, mean))
        return found

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Group of each held-out row, of all splits one after the other."""
        return connected_groups([(held.ids, held.groups) for held in self.held])

    @cached_property
    def cosine(self) -> float:
        """The mean cosine over the held-out rows of all runs."""
        if len(self.runs) == 1:
            return self.run.metrics["cosine"]
        return float(np.concatenate([held.cosine for held in self.held]).mean())

    @cached_property
    def ci95(self) -> tuple[float, float] | None:
        """The interval of `cosine` for other groups of rows.

        Seeds of the head are taken as they are. The interval of several splits also covers heads fitted on
        other training rows, as that of a difference does.
        """
        if len(self.runs) == 1:
            low, high = self.run.metrics.get("ci95") or (None, None)
            return None if low is None or high is None else (low, high)
        widening = self.widening if len(self.by_split) > 1 else 1.0
        return interval(np.concatenate([held.cosine for held in self.held]), self.groups, widening=widening)

    @cached_property
    def widening(self) -> float:
        """How much wider intervals are that also cover heads fitted on other rows; see `split_widening`."""
        number, folds = 0, []
        for held in self.held:
            folds.append(held.fold + number)
            number += int(held.fold.max()) + 1
        rows = sum(len(held.ids) for held in self.held)
        distinct = len({name for held in self.held for name in held.ids})
        return split_widening(np.concatenate(folds), self.held[0].total, rows / distinct)

    @cached_property
    def counts(self) -> Counts:
        """How many distinct rows were held out, and in how many groups."""
        if len(self.runs) == 1:
            metrics = self.run.metrics
            groups, effective = metrics.get("groups"), metrics.get("effective_groups")
            return {"n": metrics["n"], "groups": groups, "effective_groups": effective}
        return {
            "n": len({name for held in self.held for name in held.ids}),
            "groups": len(np.unique(self.groups)),
            "effective_groups": effective_groups(self.groups),
        }

    @property
    def sd_head_seeds(self) -> float | None:
        """Standard deviation of the score over seeds of the head, on one split; None for a single seed.

        Of several splits: the root of the mean variance.
        """
        scores = [[run.metrics["cosine"] for run in runs] for runs in self.by_split]
        variances = [np.var(each, ddof=1) for each in scores if len(each) > 1]
        return float(np.sqrt(np.mean(variances))) if variances else None

    @property
    def sd_split_seeds(self) -> float | None:
        """Standard deviation, over splits, of the mean score on a split; None for a single split."""
        means = [np.mean([run.metrics["cosine"] for run in runs]) for runs in self.by_split]
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def mean(self, name: str) -> float | None:
        """Give the mean of a metric over the runs; None where one of them lacks it."""
        values: list[Any] = [run.metrics.get(name) for run in self.runs]
        if None in values:
            return None
        return values[0] if len(values) == 1 else float(np.mean(values))

    def comparable(self, other: Entry) -> bool:
        """Whether both were scored on the same splits and with the same target."""
        return self.run.target.fingerprint == other.run.target.fingerprint and (
            _all_among(self.by_split, other.by_split) and _all_among(other.by_split, self.by_split)
        )


def _all_among(some: list[list[Run]], others: list[list[Run]]) -> bool:
    return all(any(same_split(one[0].split, other[0].split) for other in others) for one in some)


def series_name(run: Run) -> str:
    """Name the fit with several seeds that a run is of; empty if it was fitted alone."""
    return run.series.partition("@")[0]


def entries_of(runs: Iterable[Run]) -> list[Entry]:
    """Put the runs of one fit with several seeds together, in the order of the first of each."""
    found: dict[object, list[Run]] = {}
    for run in runs:
        found.setdefault(run.series or run.folder.resolve(), []).append(run)
    return [Entry(tuple(sorted(each, key=_seeds))) for each in found.values()]


def _seeds(run: Run) -> tuple[int, str]:
    return run.split["seed"], run.created
