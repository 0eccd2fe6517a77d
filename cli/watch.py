"""``img2prompt-cache watch``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import console
from .parsing import read_replacements


def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder in which images arrive.")],
    run: console.RunOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append a line of JSON for each image to this file. Images that it has are passed over, so "
            "the same command goes on where it ended. Default: images that arrive from now on are shown.",
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Nearest prompts for each image.")] = 1,
    bank: console.BankOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the cache. Default: the run's own, or `cache/default` to find the run.",
        ),
    ] = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="Predict without a run, as `predict --zero-shot` does.")
    ] = False,
    weights: console.WeightsOption = None,
    replace: console.ReplaceOption = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing new is left.")] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two looks at the folder.")
    ] = 1.0,
    device: console.DeviceOption = "auto",
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each image, in one line.")
    ] = False,
) -> None:
    """Predict for images as they arrive in a folder, a line for each; Ctrl-C ends it."""
    from img2prompt_cache.runs.watch import watch as look

    console.stderr.waits()
    with console.telling() as tell:
        for seen in look(
            folder,
            run,
            cache=cache,
            bank=bank,
            top_k=top_k,
            zero_shot=zero_shot or None,
            weights=weights,
            replace=read_replacements(replace or []),
            out=out,
            once=once,
            interval=interval,
            device=device,
            progress=tell,
        ):
            if json:
                console.result_json(seen)
            elif "reason" in seen:
                console.warn(f"{seen['file']}: {seen['reason']}")
            else:
                console.result(_line(seen))
            sys.stdout.flush()


def _line(seen: dict[str, Any]) -> str:
    """Lay out what was predicted for an image."""
    prompts = "  |  ".join(f"{each['prompt']} ({each['cosine']:.3f})" for each in seen["prompts"])
    expected = f"  (expected cosine {seen['expected']:.3f})" if "expected" in seen else ""
    return f"{console.clean(seen['file'])}  {console.clean(prompts)}{expected}"
