"""``img2prompt-cache top``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console
from .search import TOP, line


def top(
    by: Annotated[
        str,
        typer.Option(
            metavar="expected|score",
            help="Rank by the expected cosine, of all pictures; or by the true one, of those held out.",
        ),
    ] = "expected",
    worst: Annotated[bool, typer.Option("--worst", help="The lowest first.")] = False,
    run: console.RunOption = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    top_k: Annotated[int, typer.Option(min=1, help="How many pictures to show.")] = TOP,
    device: console.DeviceOption = "auto",
    json: console.Json = False,
) -> None:
    """Show the pictures of a cache whose prompts a run predicts best, or worst."""
    from img2prompt_cache.runs.top import top as rank

    with console.telling() as tell:
        found = rank(cache, run, by=by, worst=worst, top_k=top_k, device=device, progress=tell)  # type: ignore[arg-type]
    if json:
        console.result_json({"by": by, "found": found})
        return
    for each in found:
        console.result(line(each, each[by]))
