"""``img2prompt-cache export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from . import console
from .parsing import read_replacements

if TYPE_CHECKING:
    from img2prompt_cache.exporting.fewer_bits import Precision


def export(
    run: console.RunArgument = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write, .onnx.", show_default=True)
    ] = Path("run.onnx"),
    precision: Annotated[
        str, typer.Option(help="What backbones compute in: fp32, fp16 or int8; the last two cost quality.")
    ] = "fp32",
    force: Annotated[
        bool, typer.Option("--force", help="Write it also if fewer bits cost more than 0.002 of the score.")
    ] = False,
    cache: console.RunCacheOption = None,
    license: console.LicenseOption = None,
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
            precision=cast("Precision", precision),
            force=force,
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
                "loss": None if found.loss is None else asdict(found.loss),
                "metadata": found.metadata,
            }
        )
        return
    said = f"{found.path}: {found.bytes / 1e6:,.1f} MB in {found.precision}; "
    if found.loss is None:
        console.result(f"{said}cosine distance from the predictions of this program {found.distance:.1g}")
        return
    loss = found.loss
    change = "not measured" if loss.change is None else f"{loss.change:+.4f} on {loss.images} images"
    console.result(
        f"{said}{loss.bytes / 1e6:,.1f} MB in fp32; held-out cosine {change}; cosine to fp32 "
        f"{loss.mean:.4f} on average, {loss.least:.4f} at least"
    )
