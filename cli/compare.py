"""``img2prompt-cache compare``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .run_output import few_groups

if TYPE_CHECKING:
    from img2prompt_cache.runs.leaderboard import Leaderboard

LONGEST = 60
"""Characters shown of a prompt that names a cluster."""


def compare(
    runs: console.RunsArgument = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Also show how much each run's cosine differs from this run's, on the same rows.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Also show the cosine by `length` of the prompt in words, or by `cluster` of prompts."
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Show a leaderboard of runs that were scored on the same split.

    Targets are 384 values of length 1, so mse is cosine in other words: mse = 2 (1 − cosine) / 384. An mse
    of 0.003 is a cosine of 0.424, 0.006 one of −0.152. R@1, R@5 and R@10 say how often the true prompt is
    the nearest, or among so many, of the prompts held out in the same fold; bank is how many these are. Floor
    is the cosine of the mean head, leakage gap how much higher the same head scores on a random split. Where
    images have several prompts, cosine is that with the first, cosine of means that with the mean of all.
    Intervals are of 95 %, by bootstrap over groups of alike prompts or images.
    """
    from img2prompt_cache.runs.leaderboard import compare as rank

    board = rank(cache, runs, against, by)
    for reason in board.unreadable.values():
        console.note(f"left out: {reason}")
    if board.others:
        console.note(
            f"left out, scored on another split or target: {', '.join(run.name for run in board.others)}"
        )
    for run in (*board.runs, *board.others):
        if run.folder in board.outdated:
            console.note(
                f"{run.name} was fitted on other rows than the cache has now: "
                f"{board.outdated[run.folder]}; fit it again"
            )
    if json:
        console.note(board.title)
        console.result_json({"runs": _json(board)})
        return
    console.result(f"{board.title}\n{_table(board)}")
    for line in few_groups(board.runs[0].metrics.get("groups"), board.effective_groups):
        console.result(line)
    if board.reference is not None:
        console.result(
            f"difference: cosine minus that of {board.reference.name}; p: of no difference, adjusted for "
            f"{len(board.runs) - 1} runs (Holm)"
        )
    if by is not None:
        console.result(f"\ncosine by {by}\n{_cells(board)}")


def _json(board: Leaderboard) -> list[dict[str, Any]]:
    from img2prompt_cache.runs.run_file import LATER, METRICS, ON_MEANS

    found = []
    for number, (run, difference) in enumerate(zip(board.runs, board.differences, strict=True)):
        one: dict[str, Any] = {
            "run": str(run.folder),
            "head": run.head,
            "features": [column.spec for column in run.features],
            **{name: run.metrics.get(name) for name in (*METRICS, "ci95", *LATER, *ON_MEANS)},
            "difference": difference
            and {"cosine": difference.cosine, "ci95": difference.ci95, "p": difference.p},
            "seconds": round(run.seconds, 3),
            "parameters": run.parameters,
            "predict_rows_per_second": run.predict_rows_per_second,
            "outdated": board.outdated.get(run.folder, ""),
        }
        if board.by is not None:
            one["by"] = [
                {"cell": cell.name, "n": cell.n, "cosine": cell.cosines[number]} for cell in board.cells
            ]
        found.append(one)
    return found


def _table(board: Leaderboard) -> str:
    several = any("cosine_mean_prompt" in run.metrics for run in board.runs)
    header = ["run", "head", "features", "cosine", "95 % interval"]
    header += ["cosine of means"] * several
    header += ["difference", "p"] * (board.reference is not None)
    header += ["mse", "R@1", "R@5", "R@10", "bank", "floor", "leakage gap", "seconds", "parameters", "rows/s"]
    rows = []
    for record, run, difference in zip(board.records(), board.runs, board.differences, strict=True):
        row = [record["run"], run.head, record["features"], run.metrics["cosine"]]
        row.append(_interval(run.metrics.get("ci95")))
        if several:
            row.append(record["cosine_mean_prompt"])
        if board.reference is not None:
            row.append(difference and f"{difference.cosine:+.4f} ({_interval(difference.ci95)})")
            row.append(difference and _short(difference.p, 4))
        row.append(f"{run.metrics['mse']:.6f}")
        row += [_short(record[f"r@{k}"], 3) for k in (1, 5, 10)]
        row += [_short(record["bank"], 0), record["floor"], record["leakage_gap"], _short(run.seconds, 1)]
        row += [run.parameters, _short(run.predict_rows_per_second, 0)]
        rows.append(row)
    return console.table(header, rows)


def _cells(board: Leaderboard) -> str:
    from img2prompt_cache.tables import shorten

    rows = [[shorten(cell.name, LONGEST), cell.n, *cell.cosines] for cell in board.cells]
    return console.table(["", "n", *(run.name for run in board.runs)], rows)


def _interval(inside: Sequence[float] | None) -> str | None:
    return None if inside is None else f"{inside[0]:.4f} to {inside[1]:.4f}"


def _short(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
