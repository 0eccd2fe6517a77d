"""``img2prompt-cache search``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import console

TOP = 10


def search(
    query: Annotated[
        str,
        typer.Argument(metavar="TEXT|IMAGE", help="What to look for: words, or an image file."),
    ],
    by: Annotated[
        str | None,
        typer.Option(
            metavar="image|prompt",
            help="Compare with the pictures (of words: with what a run predicts for them), or with their own "
            "prompts. Default: image, or prompt where there is no run for words.",
            show_default=False,
        ),
    ] = None,
    run: console.RunOption = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    top_k: Annotated[int, typer.Option(min=1, help="How many pictures to show.")] = TOP,
    device: console.DeviceOption = "auto",
    json: console.Json = False,
) -> None:
    """Find the pictures of a cache that are nearest to some words or to an image."""
    from img2prompt_cache.runs.search import search as find

    with console.telling() as tell:
        found = find(query, cache, by=by, run=run, top_k=top_k, device=device, progress=tell)  # type: ignore[arg-type]
    if json:
        console.result_json({"query": query, "found": found})
        return
    for each in found:
        console.result(line(each, each["cosine"]))


def line(picture: dict[str, Any], value: float) -> str:
    """Lay out a picture that was found."""
    prompt = f"  {console.clean(picture['prompt'])}" if picture["prompt"] else ""
    return f"{value:.3f}  {console.clean(picture['file'] or picture['imgId'])}{prompt}"
