"""``img2prompt-cache compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from img2prompt_cache.tables import counted

from . import console
from .run_output import few_groups

if TYPE_CHECKING:
    from img2prompt_cache.runs.board import Leaderboard

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
    format: Annotated[
        str | None,
        typer.Option(
            metavar="md|csv|latex",
            help="Print a table for a paper or a spreadsheet instead. Default with --out: by its extension.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write that table to a .md, .csv or .tex file; with --format, to any other.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that file.")] = False,
    json: console.Json = False,
) -> None:
    """Show a leaderboard of runs that were scored on the same split.

    Targets are 384 values of length 1, so mse is cosine in other words: mse = 2 (1 − cosine) / 384. An mse
    of 0.003 is a cosine of 0.424, 0.006 one of −0.152. R@1, R@5 and R@10 say how often the true prompt is
    the nearest, or among so many, of the prompts held out in the same fold; bank is how many these are. Floor
    is the cosine of the mean head, leakage gap how much higher the same head scores on a random split. Where
    images have several prompts, cosine is that with the first, cosine of means that with the mean of all.
    Seconds are those of the whole fit, parameters the values it has saved, rows/s how many rows a second were
    predicted from cached features. Intervals are of 95 %, by bootstrap over groups of alike prompts or
    images. The runs of one fit with several seeds are one row: their mean, and sd, how much the score varies
    with the seed.
    """
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.runs.leaderboard import compare as rank

    if format and json:
        raise UsageError("--format and --json are two ways to print the table; leave one out")
    board = rank(cache, runs, against, by, out=out, format=format, overwrite=overwrite)
    for reason in board.unreadable.values():
        console.warn(f"left out: {reason}")
    for why, left_out in board.left_out.items():
        names = ", ".join(run.name for run in left_out)
        console.warn(f"left out, scored on another split or target: {names} ({why})")
    for run in (*board.runs, *board.others):
        if run.folder in board.outdated:
            console.warn(
                f"{run.name} was fitted on other rows than the cache has now: "
                f"{board.outdated[run.folder]}; fit it again"
            )
    if json:
        console.note(board.title)
        console.result_json({"runs": _json(board)})
        return
    if out:
        console.result(f"{out}: {counted(len(board), 'entry', 'entries')}")
        return
    if format:
        print(board.table(format), end="")  # noqa: T201 it is for other programs, whole
        return
    console.result(f"{board.title}\n{_table(board)}")
    for line in few_groups(board.entries[0].counts["groups"], board.effective_groups):
        console.result(line)
    if board.reference is not None:
        console.result(
            f"difference: cosine minus that of {board.reference.name}; p: of no difference, adjusted for "
            f"{counted(len(board) - 1, 'comparison', 'comparisons')} (Holm)"
        )
    if by is not None:
        console.result(f"\ncosine by {by}\n{_cells(board)}")


def _json(board: Leaderboard) -> list[dict[str, Any]]:
    from img2prompt_cache.runs.run_file import LATER, METRICS, ON_MEANS

    found = []
    for number, (entry, difference) in enumerate(zip(board.entries, board.differences, strict=True)):
        run = entry.run
        one: dict[str, Any] = {
            "run": str(run.folder) if len(entry.runs) == 1 else entry.name,
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
        if len(entry.runs) > 1:
            one |= {name: entry.mean(name) for name in (*METRICS, *LATER, "cosine_mean_prompt")}
            one |= {"cosine": entry.cosine, "ci95": entry.ci95, "ci95_mean_prompt": None, **entry.counts}
            one |= {
                "runs": [str(each.folder) for each in entry.runs],
                "head_seeds": entry.head_seeds,
                "split_seeds": entry.split_seeds,
                "sd_head_seeds": entry.sd_head_seeds,
                "sd_split_seeds": entry.sd_split_seeds,
                "seconds": round(sum(each.seconds for each in entry.runs), 3),
            }
        if board.by is not None:
            one["by"] = [
                {"cell": cell.name, "n": cell.n, "cosine": cell.cosines[number]} for cell in board.cells
            ]
        found.append(one)
    return found


def _table(board: Leaderboard) -> str:
    records = board.records()
    several = any(record["cosine_mean_prompt"] is not None for record in records)
    repeated = [
        (name, key)
        for name, key in (("sd, head seeds", "sd_head_seeds"), ("sd, split seeds", "sd_split_seeds"))
        if any(record[key] is not None for record in records)
    ]
    header = ["run", *["runs"] * bool(repeated), "head", "features", "cosine", "95 % interval"]
    header += [name for name, _ in repeated] + ["cosine of means"] * several
    header += ["difference", "p"] * (board.reference is not None)
    header += ["mse", "R@1", "R@5", "R@10", "bank", "floor", "leakage gap", "seconds", "parameters", "rows/s"]
    rows = []
    for record, entry, difference in zip(records, board.entries, board.differences, strict=True):
        row = [record["run"], *[record["runs"]] * bool(repeated), record["head"], record["features"]]
        row += [entry.cosine, _interval(entry.ci95), *(record[key] for _, key in repeated)]
        if several:
            row.append(record["cosine_mean_prompt"])
        if board.reference is not None:
            row.append(difference and f"{difference.cosine:+.4f} ({_interval(difference.ci95)})")
            row.append(difference and _short(difference.p, 4))
        row.append(f"{record['mse']:.6f}")
        row += [_short(record[f"r@{k}"], 3) for k in (1, 5, 10)]
        row += [_short(record["bank"], 0), record["floor"], record["leakage_gap"]]
        row += [_short(record["seconds"], 1), record["parameters"], _short(record["rows_per_second"], 0)]
        rows.append(row)
    return console.table(header, rows)


def _cells(board: Leaderboard) -> str:
    from img2prompt_cache.tables import shorten

    rows = [[shorten(cell.name, LONGEST), cell.n, *cell.cosines] for cell in board.cells]
    return console.table(["", "n", *(entry.name for entry in board.entries)], rows)


def _interval(inside: Sequence[float] | None) -> str | None:
    return None if inside is None else f"{inside[0]:.4f} to {inside[1]:.4f}"


def _short(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
