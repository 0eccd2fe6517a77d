"""``img2prompt-cache compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN ...]",
            help="Run folders, or names in the cache's `runs`. Absent: all.",
            show_default=False,
        ),
    ] = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    json: console.Json = False,
) -> None:
    """Show a leaderboard of runs that were scored on the same split."""
    from img2prompt_cache.compare import compare as rank
    from img2prompt_cache.runs import find_runs, resolve_run

    folder = Path(cache)
    named = [resolve_run(name, folder) for name in runs or ()]
    board = rank(named or find_runs(folder))
    if board.others:
        console.note(
            f"left out, scored on another split or target: {', '.join(path.name for path in board.others)}"
        )
    if json:
        console.result_json(
            {
                "runs": [
                    {
                        "run": str(path),
                        "head": run.head,
                        "features": [use.spec for use in run.features],
                        **run.metrics,
                        "seconds": round(run.seconds, 3),
                    }
                    for path, run in board.runs
                ],
                "split": board.split,
            }
        )
        return
    split = board.split
    console.result(
        f"split {split['strategy']}, seed {split['seed']}: {split['validation']} rows held out of "
        f"{int(str(split['train'])) + int(str(split['validation']))}"
    )
    header = ["run", "cosine", "mse", "R@1", "R@5", "n", "seconds"]
    rows = [
        [
            path.name,
            run.metrics["cosine"],
            f"{run.metrics['mse']:.6f}",
            f"{run.metrics['r@1']:.3f}",
            f"{run.metrics['r@5']:.3f}",
            int(run.metrics["n"]),
            f"{run.seconds:.1f}",
        ]
        for path, run in board.runs
    ]
    console.result(console.table(header, rows))
