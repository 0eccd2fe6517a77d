"""``img2prompt-cache export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .parsing import read_replacements


def export(
    run: console.RunArgument = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write, .onnx.", show_default=True)
    ] = Path("run.onnx"),
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The cache to find the run in. Default: `cache/default`."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Licence that you share the run under, such as mit."),
    ] = None,
    weights: console.WeightsOption = None,
    replace: console.ReplaceOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    json: console.Json = False,
) -> None:
    """Write a run as one ONNX file: from pixels to the predicted vector, without torch or this program.

    Beside it `NAME.golden.npz` holds 12 images as the file takes them, and what it gives, to try a client
    on: images of the cache where they can be read, else drawn ones.
    """
    from img2prompt_cache.exporting.export import export as write

    with console.telling() as tell:
        found = write(
            run,
            out,
            cache=cache,
            license=license,
            weights=weights,
            replace=read_replacements(replace or []),
            overwrite=overwrite,
            progress=tell,
        )
    if json:
        console.result_json(
            {
                "out": str(found.path),
                "golden": str(found.golden),
                "bytes": found.bytes,
                "precision": found.precision,
                "distance": found.distance,
                "origin": found.origin,
                "metadata": found.metadata,
            }
        )
    else:
        console.result(
            f"{found.path}: {found.bytes / 1e6:,.1f} MB in {found.precision}; cosine distance from "
            f"the predictions of this program at most {found.distance:.1g}"
        )
