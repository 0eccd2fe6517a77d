"""``img2prompt-cache compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.runs.breakdown import Cell
    from img2prompt_cache.runs.leaderboard import Difference, Leaderboard
    from img2prompt_cache.runs.run import Run

    Told = list[tuple[Path, Run, Difference | None]]

LONGEST = 60
"""Characters shown of a prompt that names a cluster."""


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Run folders, or names in the cache's `runs`. Absent: all.",
            show_default=False,
        ),
    ] = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Also tell the difference of each run's cosine from this one's, on the same rows.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Also tell the cosine by `length` of the prompt in words, or by `cluster` of prompts."
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Show a leaderboard of runs that were scored on the same split.

    Targets are 384 values of length 1, so mse is cosine in other words: mse = 2 (1 − cosine) / 384. An mse of
    0.003 is a cosine of 0.424, 0.006 one of −0.152. R@1, R@5 and R@10 say how often the true prompt is the
    nearest, or among so many, of the held-out ones. Floor is the cosine of the mean head, optimism how much
    more a random split says of the same head. Intervals are of 95 %, by bootstrap over groups of alike
    prompts or images.
    """
    from img2prompt_cache.runs.breakdown import breakdown
    from img2prompt_cache.runs.leaderboard import compare as rank
    from img2prompt_cache.runs.leaderboard import differences
    from img2prompt_cache.runs.names import find_runs, resolve_run

    folder = Path(cache)
    reference = None if against is None else resolve_run(against, folder)
    named = [resolve_run(name, folder) for name in runs or ()]
    board = rank(
        named or [path for path in find_runs(folder) if _readable(path, rows=bool(against or by))], reference
    )
    if board.others:
        console.note(
            f"left out, scored on another split or target: {', '.join(path.name for path in board.others)}"
        )
    found = [None] * len(board.runs) if reference is None else differences(board, reference)
    told = [(path, run, difference) for (path, run), difference in zip(board.runs, found, strict=True)]
    cells = None if by is None else breakdown(board, by)
    if json:
        console.note(_told(board))
        console.result_json({"runs": _json(told, cells)})
        return
    console.result(f"{_told(board)}\n{_table(told, with_difference=reference is not None)}")
    if reference is not None:
        console.result(f"difference: cosine minus that of {reference.name}")
    if cells is not None:
        console.result(f"\ncosine by {by}\n{_cells(cells, [path.name for path, _ in board.runs])}")


def _readable(folder: Path, *, rows: bool) -> bool:
    """Whether a run, and its held-out rows if `rows`, can be read: none spoils it for those beside it."""
    from img2prompt_cache.errors import Img2PromptError
    from img2prompt_cache.runs.held_out import load_validation
    from img2prompt_cache.runs.run import load_run

    try:
        run = load_run(folder)
        if rows:
            load_validation(folder, run)
    except Img2PromptError as error:
        console.note(f"left out: {error}")
        return False
    return True


def _told(board: Leaderboard) -> str:
    split = board.split
    rows, name = split["validation"], f"split {split['strategy']}, seed {split['seed']}"
    if split.get("folds", 1) > 1:
        return f"{name}: {rows} rows in {split['folds']} folds"
    return f"{name}: {rows} rows held out of {split['train'] + rows}"


def _json(told: Told, cells: Sequence[Cell] | None) -> list[dict[str, Any]]:
    from img2prompt_cache.runs.run import LATER, METRICS

    found = []
    for number, (path, run, difference) in enumerate(told):
        one: dict[str, Any] = {
            "run": str(path),
            "head": run.head,
            "features": [use.spec for use in run.features],
            **{name: run.metrics[name] for name in METRICS},
            **{name: run.metrics.get(name) for name in ("ci95", *LATER)},
            "difference": difference and {"cosine": difference.cosine, "ci95": difference.ci95},
            "seconds": round(run.seconds, 3),
            "parameters": run.parameters,
            "predict_rows_per_second": run.predict_rows_per_second,
        }
        if cells is not None:
            one["by"] = [{"cell": cell.name, "n": cell.n, "cosine": cell.cosines[number]} for cell in cells]
        found.append(one)
    return found


def _table(told: Told, *, with_difference: bool) -> str:
    from img2prompt_cache.runs.names import short_name

    header = ["run", "head", "features", "cosine", "95 % interval"]
    header += ["difference"] * with_difference
    header += ["mse", "R@1", "R@5", "R@10", "floor", "optimism", "seconds", "parameters", "rows/s"]
    rows = []
    for path, run, difference in told:
        features = "+".join(short_name(use.spec) for use in run.features)
        row = [path.name, run.head, features, run.metrics["cosine"], _interval(run.metrics.get("ci95"))]
        if with_difference:
            row.append(difference and f"{difference.cosine:+.4f} ({_interval(difference.ci95)})")
        row.append(f"{run.metrics['mse']:.6f}")
        row += [_short(run.metrics.get(f"r@{k}"), 3) for k in (1, 5, 10)]
        row += [run.metrics.get("floor"), run.metrics.get("optimism"), _short(run.seconds, 1)]
        row += [run.parameters, _short(run.predict_rows_per_second, 0)]
        rows.append(row)
    return console.table(header, rows)


def _cells(cells: Sequence[Cell], names: Sequence[str]) -> str:
    rows = [
        [cell.name if len(cell.name) <= LONGEST else f"{cell.name[: LONGEST - 1]}…", cell.n, *cell.cosines]
        for cell in cells
    ]
    return console.table(["", "n", *names], rows)


def _interval(inside: Sequence[float] | None) -> str | None:
    return None if inside is None else f"{inside[0]:.4f} to {inside[1]:.4f}"


def _short(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
