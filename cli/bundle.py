"""``img2prompt-cache bundle``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .parsing import read_replacements


def bundle(
    run: console.RunArgument = None,
    out: Annotated[
        Path,
        typer.Option(metavar="PATH", help="A zip file, if it ends with .zip; else a folder."),
    ] = Path("run.zip"),
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The cache whose prompts go in. Default: the run's own, or `cache/default` to find the run.",
        ),
    ] = None,
    bank: console.BankOption = None,
    weights: console.WeightsOption = None,
    replace: console.ReplaceOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier bundle.")] = False,
    json: console.Json = False,
) -> None:
    """Put a run, its prompts and the weights of its models into one file that predicts offline.

    `predict --run run.zip` takes it in place of a run, on any machine.
    """
    from img2prompt_cache.runs.bundle import bundle as pack

    with console.telling() as tell:
        made = pack(
            run,
            out,
            cache=cache,
            bank=bank,
            weights=weights,
            replace=read_replacements(replace or []),
            overwrite=overwrite,
            progress=tell,
        )
    files = [path for path in made.rglob("*") if path.is_file()] if made.is_dir() else [made]
    size = sum(path.stat().st_size for path in files)
    if json:
        console.result_json({"out": str(made), "bytes": size})
    else:
        console.result(f"{made}: {size / 1e6:,.1f} MB; predict with --run {made}")
