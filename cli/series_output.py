"""What ``fit --seeds`` prints: a line for each run, and what they are together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import console
from .run_output import caution_lines, run_line, run_values

if TYPE_CHECKING:
    from img2prompt_cache.runs.run import Run


def series_values(runs: Sequence[Run]) -> dict[str, Any]:
    """Give the runs of one fit with several seeds as JSON values."""
    from img2prompt_cache.runs.entries import Entry

    entry = Entry(tuple(runs))
    return {
        "name": entry.name,
        "cosine": entry.cosine,
        "ci95": entry.ci95,
        "sd_head_seeds": entry.sd_head_seeds,
        "sd_split_seeds": entry.sd_split_seeds,
        **entry.counts,
        "runs": [
            {**run_values(run), "head_seed": run.settings.get("seed"), "split_seed": run.split["seed"]}
            for run in runs
        ],
    }


def series_lines(runs: Sequence[Run]) -> list[str]:
    """Describe each run in a line, then all of them together."""
    from img2prompt_cache.runs.entries import Entry
    from img2prompt_cache.runs.seeds import seeds_text

    lines = [run_line(run) for run in runs]
    if len(runs) == 1:
        return [*lines, *caution_lines(runs[0])]
    entry = Entry(tuple(runs))
    between = "" if entry.ci95 is None else f" ({entry.ci95[0]:.4f} to {entry.ci95[1]:.4f})"
    told = f"{entry.name}: mean cosine {entry.cosine:.4f}{between} of {len(runs)} runs"
    for what, seeds, sd in (
        ("head", entry.head_seeds, entry.sd_head_seeds),
        ("split", entry.split_seeds, entry.sd_split_seeds),
    ):
        if sd is not None:
            told += f"; sd {sd:.4f} over {what} seeds {seeds_text(seeds)}"
    return [*lines, *caution_lines(runs[0]), told]


def fit_several(
    cache: str, head: str, seeds: str | None, split_seeds: str | None, json: bool, parameters: dict[str, Any]
) -> None:
    """Fit once for each seed, and print the runs and what they are together."""
    from img2prompt_cache.fitting.seeds import fit_seeds

    runs = fit_seeds(cache, head, seeds=seeds, split_seeds=split_seeds, **parameters)
    if json:
        console.result_json(series_values(runs))
    else:
        console.result("\n".join(series_lines(runs)))
