"""``img2prompt-cache predict``."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.prediction.predictions import Predictions


def predict(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Images, folders, any source, a cache, or - for a list of paths on stdin. Default: the rows "
            "of the cache that have no prompt.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A run folder, or its name in the cache. Default: the newest run."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write embeddings: .npy, .csv (Kaggle), .parquet or .jsonl."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1000,
            help="Nearest prompts for each image. Default: 3, or none with --out and without --bank.",
        ),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts to choose from: a text file or a table. Default: those of the cache.",
        ),
    ] = None,
    compose: Annotated[
        bool,
        typer.Option(
            "--compose",
            help="Compose a prompt for each image, of phrases in the prompts of the cache and of --bank.",
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the cache. Default: the run's own, or `cache/default` to find the run.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    json: console.Json = False,
) -> None:
    """Predict prompt embeddings for images, and show the nearest prompts."""
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.prediction.outputs import WRITERS
    from img2prompt_cache.prediction.predict import predict_batches
    from img2prompt_cache.runs.names import open_run

    if top_k == 0 and not out and not compose:
        raise UsageError(
            "`top_k=0` without `out` leaves nothing to show; name a file with `out`", parameter="top_k"
        )
    fitted = open_run(run, cache or console.DEFAULT_CACHE)
    predictions: list[dict[str, Any]] = []
    bad: dict[str, str] = {}
    count = 0
    with ExitStack() as stack:
        tell = stack.enter_context(console.telling())
        batches = predict_batches(
            fitted,
            _images(paths),
            top_k=top_k,
            bank=bank,
            compose=compose,
            cache=cache,
            out=out,
            overwrite=overwrite,
            device=device,
            tell=tell,
        )
        if run is None:
            console.note(f"run {fitted.name}")
        written = out is not None and WRITERS[out.suffix.lower()].keeps_prompts
        for batch in stack.enter_context(closing(batches)):
            for name, reason in batch.failed.items():
                console.note(f"{name}: {reason}")
            bad |= batch.failed
            count += len(batch.ids)
            if written:
                continue
            for row, name in enumerate(batch.ids):
                shown = _shown(batch, row)
                if json and shown:
                    predictions.append({"imgId": name, **shown})
                elif shown:
                    lines = [
                        f"  {one['cosine']:.3f}  {console.clean(one['prompt'])}"
                        for one in shown.get("prompts", ())
                    ]
                    if "composed" in shown:
                        composed = console.clean(shown["composed"])
                        lines.append(f"  {shown['composed_cosine']:.3f}  {composed}  (composed)")
                    console.result("\n".join([console.clean(name), *lines]))
    if bad:
        console.note(f"{len(bad)} images could not be used and were left out")
    if json:
        console.result_json(
            {
                "run": str(fitted.folder),
                "head": fitted.head,
                "rows": count,
                "bad": bad,
                "out": str(out) if out else None,
                "predictions": predictions,
            }
        )
    elif out:
        console.result(f"{out}: {count} predictions")


def _shown(batch: Predictions, row: int) -> dict[str, Any]:
    """Give the prompts of one image: the nearest ones and the composed one, as far as they were asked for."""
    from img2prompt_cache.prediction.outputs.base import plain, records

    shown: dict[str, Any] = {}
    if batch.nearest is not None:
        shown["prompts"] = records(batch.nearest[row])
    if batch.composed is not None and batch.composed_cosines is not None:
        shown["composed"] = batch.composed[row]
        shown["composed_cosine"] = plain(batch.composed_cosines[row])
    return shown


def _images(paths: list[str] | None) -> list[str] | None:
    """Give the paths that were named, or those that come on stdin for ``-``."""
    if paths != ["-"]:
        return paths or None
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # one odd name is no reason to drop the list
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
