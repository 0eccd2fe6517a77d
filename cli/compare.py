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
            metavar="RUN",
            help="Run folders, or names in the cache's `runs`. Absent: all.",
            show_default=False,
        ),
    ] = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    json: console.Json = False,
) -> None:
    """Show a leaderboard of runs that were scored on the same split.

    Targets are 384 values of length 1, so mse is cosine in other words: mse = 2 (1 − cosine) / 384. An mse of
    0.003 is a cosine of 0.424, 0.006 one of −0.152. R@1 and R@5 say how often the true prompt is the nearest,
    or among five, of the held-out ones.
    """
    from img2prompt_cache.compare import compare as rank
    from img2prompt_cache.runs import METRICS, find_runs, resolve_run, short_name

    folder = Path(cache)
    named = [resolve_run(name, folder) for name in runs or ()]
    board = rank(named or find_runs(folder))
    if board.others:
        console.note(
            f"left out, scored on another split or target: {', '.join(path.name for path in board.others)}"
        )
    split = board.split
    told = (
        f"split {split['strategy']}, seed {split['seed']}: {split['validation']} rows held out of "
        f"{split['train'] + split['validation']}"
    )
    if json:
        console.note(told)
        console.result_json(
            {
                "runs": [
                    {
                        "run": str(path),
                        "head": run.head,
                        "features": [use.spec for use in run.features],
                        **{name: run.metrics[name] for name in METRICS},
                        "seconds": round(run.seconds, 3),
                    }
                    for path, run in board.runs
                ]
            }
        )
        return
    rows = [
        [
            path.name,
            run.head,
            "+".join(short_name(use.spec) for use in run.features),
            run.metrics["cosine"],
            f"{run.metrics['mse']:.6f}",
            f"{run.metrics['r@1']:.3f}",
            f"{run.metrics['r@5']:.3f}",
            run.metrics["n"],
            f"{run.seconds:.1f}",
        ]
        for path, run in board.runs
    ]
    header = ["run", "head", "features", "cosine", "mse", "R@1", "R@5", "n", "seconds"]
    console.result(f"{told}\n{console.table(header, rows)}")
