"""``img2prompt-cache report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console


def report(
    runs: console.RunsArgument = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="HTML file to write, or with --folder a folder. Default: `report.html` or `report` in the "
            "cache.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        bool, typer.Option("--folder", help="Show every row, with pictures in files beside the page.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier report.")] = False,
    compose: Annotated[
        bool, typer.Option("--compose", help="Also compose a prompt for each case, with the text encoder.")
    ] = False,
    atlas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the points of the map, for the tool embedding-atlas: a parquet file.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print the data as one JSON object; write a page only with --out.")
    ] = False,
) -> None:
    """Make a page to look at: the data, the heads, single cases, and numbered checks.

    One HTML file that needs no network. Nothing is fitted, and no model is loaded without --compose.
    Images are read from where they were cached from.
    """
    from img2prompt_cache.reporting.output import FILE, FOLDER
    from img2prompt_cache.reporting.report import report as make
    from img2prompt_cache.tables import counted

    if out is None and not json:
        out = Path(cache) / (FOLDER if folder else FILE)
    with console.telling() as tell:
        made = make(
            cache,
            runs,
            out=out,
            folder=folder,
            overwrite=overwrite,
            compose=compose,
            atlas=atlas,
            seed=seed,
            progress=tell,
        )
    if json:
        files = {"out": out, "atlas": atlas}
        console.result_json(
            {**made.to_dict(), **{name: None if path is None else str(path) for name, path in files.items()}}
        )
        return
    found = made.sections["checks"].counts if "checks" in made.sections else {}
    told = [counted(found[name], name, f"{name}s") for name in ("problem", "caution", "remark") if found]
    console.result(f"{out}: {', '.join(made.sections)}" + "".join(f"; {each}" for each in told))
    if atlas is not None:
        console.result(f"{atlas}: {counted(len(made.sections['map'].rows), 'point', 'points')}")
