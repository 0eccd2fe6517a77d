"""A leaderboard: entries of one split and one target, and what is told of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.runs.board_table import SIGNIFICANT, table_text
from img2prompt_cache.runs.breakdown import Cell
from img2prompt_cache.runs.differences import Difference
from img2prompt_cache.runs.entries import Entry
from img2prompt_cache.runs.names import joined_name
from img2prompt_cache.runs.record import SplitRecord
from img2prompt_cache.runs.run import Run
from img2prompt_cache.runs.seeds import seeds_text
from img2prompt_cache.tables import Records, counted, html_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Leaderboard:
    """Entries of one split and one target, best first: runs, or fits with several seeds.

    Attributes
    ----------
    entries : list of Entry
        By mean cosine, highest first.
    others : list of Run
        Runs of another split or target, left out.
    reasons : dict of pathlib.Path to str
        Why each of these is left out, by the folder of the run.
    unreadable : dict of pathlib.Path to str
        Runs of the cache that are damaged, and how.
    reference : Entry or None
        What the others are held against.
    differences : list of Difference or None
        Of each entry from the reference; None for the reference itself, and for all where there is none.
    by : str or None
        What the held-out rows were grouped by.
    cells : list of Cell
        Mean cosines on each group of rows.
    outdated : dict of pathlib.Path to str
        Of `runs` and `others`, those that were fitted on rows of which some have changed since: their images
        or prompts were replaced or removed. What has changed, by the folder of the run.
    """

    entries: list[Entry]
    others: list[Run] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    reference: Entry | None = None
    differences: list[Difference | None] = field(default_factory=list)
    by: str | None = None
    cells: list[Cell] = field(default_factory=list)
    outdated: dict[Path, str] = field(default_factory=dict)
    reasons: dict[Path, str] = field(default_factory=dict)

    @property
    def split(self) -> SplitRecord:
        """The split that all entries share; of several, the first."""
        return self.entries[0].run.split

    @property
    def runs(self) -> list[Run]:
        """All runs, those of one entry together."""
        return [run for entry in self.entries for run in entry.runs]

    @property
    def left_out(self) -> dict[str, list[Run]]:
        """The runs of `others`, those that are left out for one reason together."""
        found: dict[str, list[Run]] = {}
        for run in self.others:
            found.setdefault(self.reasons.get(run.folder, ""), []).append(run)
        return found

    @property
    def best(self) -> Run:
        """The run of the highest mean cosine; of several seeds, the first."""
        return self.entries[0].run

    def records(self) -> Records:
        """Give a record for each entry: its name, what it was fitted on, its metrics and its difference."""
        found = Records()
        for entry, difference in zip(self.entries, self.differences, strict=True):
            run, (low, high) = entry.run, entry.ci95 or (None, None)
            record: dict[str, Any] = {
                "run": entry.name,
                "head": run.head,
                "features": joined_name([column.spec for column in run.features]),
                "runs": len(entry.runs),
                "head_seeds": seeds_text(entry.head_seeds),
                "split_seeds": seeds_text(entry.split_seeds),
                "cosine": entry.cosine,
                "ci95_low": low,
                "ci95_high": high,
                "sd_head_seeds": entry.sd_head_seeds,
                "sd_split_seeds": entry.sd_split_seeds,
                "cosine_mean_prompt": entry.mean("cosine_mean_prompt"),
            }
            if self.reference is not None:
                inside = difference.ci95 if difference else None
                record |= {
                    "difference": difference.cosine if difference else None,
                    "difference_low": inside[0] if inside else None,
                    "difference_high": inside[1] if inside else None,
                    "difference_p": difference.p if difference else None,
                }
            metrics = ("mse", "r@1", "r@5", "r@10", "bank", "floor", "leakage_gap")
            counts = entry.counts
            found.append(
                {
                    **record,
                    **{name: entry.mean(name) for name in metrics},
                    "groups": counts["groups"],
                    "effective_groups": counts["effective_groups"],
                    "n": counts["n"],
                    "seconds": sum(each.seconds for each in entry.runs),
                    "parameters": run.parameters,
                    "rows_per_second": run.predict_rows_per_second,
                }
            )
        return found

    def table(self, format: str = "md") -> str:
        """Lay out the entries as a table for a paper.

        Parameters
        ----------
        format : {"md", "csv", "latex"}
            A ``csv`` has all of `records`, unrounded; the others the score, with half the width of its 95 %
            interval after ±, its difference from the reference and what the interval rests on.

        Raises
        ------
        UsageError
            If there is no such format.
        """
        return table_text(self.records(), self.notes, format)

    def to_pandas(self) -> pd.DataFrame:
        """Give a data frame with a row for each entry, best first; see `records` for its columns.

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
        return next(filter(None, (entry.counts["effective_groups"] for entry in self.entries)), None)

    @property
    def notes(self) -> list[str]:
        """What a reader of the table has to know, in sentences."""
        said = [
            f"{self.title[0].upper()}{self.title[1:]}.",
            "± is half the width of the 95 % interval, by bootstrap over groups of near-identical rows.",
        ]
        if any(len(entry.runs) > 1 for entry in self.entries):
            said.append(
                "Of several seeds the score is the mean; sd is the standard deviation of the score over "
                "seeds of the head, or of the split."
            )
        if any(len(entry.split_seeds) > 1 for entry in self.entries):
            said.append(
                "The interval of several splits also covers other training rows (Nadeau and Bengio); others "
                "take the fitted heads as given."
            )
        if self.reference is not None:
            said.append(
                f"Difference: cosine minus that of {self.reference.name}, paired by row; its interval also "
                f"covers other training rows (Nadeau and Bengio). p is two-sided and adjusted for "
                f"{counted(len(self.entries) - 1, 'comparison', 'comparisons')} by Holm's procedure; * is "
                f"p < {SIGNIFICANT:g}."
            )
        return said

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        if not self.entries:
            return "Leaderboard(0 entries)"
        best = self.entries[0]
        many = "" if len(self.runs) == len(self) else f" in {len(self)} entries"
        return (
            f"Leaderboard({counted(len(self.runs), 'run', 'runs')}{many}, best {best.name} at cosine "
            f"{best.cosine:.4f})"
        )

    def _repr_html_(self) -> str:
        records = self.records()
        names = list(records[0]) if records else []
        rows = [[record[name] for name in names] for record in records]
        return html_table(names, rows, self.title)

    @property
    def title(self) -> str:
        """One line on the split."""
        split, seeds = self.split, self.entries[0].split_seeds
        name = f"split {split['strategy']}, seed{'s' * (len(seeds) > 1)} {seeds_text(seeds)}"
        rows = split["validation"]
        counts = "" if self.effective_groups is None else f", like {self.effective_groups:.1f} equal groups"
        each = " each" * (len(seeds) > 1)
        if split.get("folds", 1) > 1:
            return f"{name}: {counted(rows, 'row', 'rows')} in {split['folds']} folds{each}{counts}"
        return f"{name}: {counted(rows, 'row', 'rows')} held out of {split['train'] + rows}{each}{counts}"
