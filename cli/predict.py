"""``img2prompt-cache predict``."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from img2prompt_cache.tables import counted

from . import console
from .parsing import read_replacements

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
        typer.Option(
            metavar="DIR",
            help="A run folder or bundle, a name in the cache, or hf://OWNER/NAME. Default: the newest run.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write embeddings: .npy, .csv (Kaggle), .parquet or .jsonl; or a table to read: "
            ".prompts.csv. A name that ends with / is a folder: one .txt with a prompt for each image.",
        ),
    ] = None,
    sidecar: Annotated[
        str | None,
        typer.Option(
            metavar="txt|caption|json",
            help="Write the prompt of each image into a file beside it. What is there stays.",
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1000,
            help="Nearest prompts for each image. Default: 3, or none with --out and without --bank.",
        ),
    ] = None,
    bank: console.BankOption = None,
    hub_correction: Annotated[
        bool,
        typer.Option(
            help="Rank the nearest prompts with a correction for those that are near to every prediction.",
        ),
    ] = True,
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
    min_expected: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            metavar="X",
            help="Flag predictions that are expected to have a cosine below X with the true prompt.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A sample submission: the .csv file of --out gets its images, in its order.",
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Accept the mean in a submission for images that are missing or cannot be used; otherwise "
            "exit code 1.",
        ),
    ] = False,
    weights: console.WeightsOption = None,
    replace: console.ReplaceOption = None,
    zero_shot: Annotated[
        bool,
        typer.Option(
            "--zero-shot",
            help="Predict without a run and without pairs, from class names or a CLIP model and a bank of "
            "prompts; much worse than a run. Also if no run is named and there is none.",
        ),
    ] = False,
    device: console.DeviceOption = "auto",
    runtime: console.RuntimeOption = "auto",
    engine: console.EngineOption = "local",
    workers: console.WorkersOption = None,
    ray_address: console.RayAddressOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output file, and sidecars.")
    ] = False,
    json: console.Json = False,
) -> None:
    """Predict prompt embeddings for images, and show the nearest prompts."""
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.numerics.workers import computing_on
    from img2prompt_cache.prediction.outputs import writer_for
    from img2prompt_cache.prediction.predict import predict_batches
    from img2prompt_cache.prediction.weights import weights_of
    from img2prompt_cache.runs.predict import open_fitted
    from img2prompt_cache.runs.run import Run

    if top_k == 0 and out is None and sidecar is None and not compose:
        raise UsageError(
            "`top_k=0` without `out` leaves nothing to show; name a file with `out`", parameter="top_k"
        )
    images = _images(paths)
    replaced = read_replacements(replace or [])
    predictions: list[dict[str, Any]] = []
    bad: dict[str, str] = {}
    count = 0
    with ExitStack() as stack:
        tell = stack.enter_context(console.telling())
        fitted = open_fitted(
            run,
            images,
            zero_shot=zero_shot or None,
            bank=bank,
            compose=compose,
            cache=cache,
            min_expected=min_expected,
            weights=weights,
            replace=replaced,
            device=device,
            tell=tell,
        )
        stack.enter_context(weights_of(fitted, weights, replaced))
        stack.enter_context(computing_on(engine, workers, ray_address, gpus=device != "cpu"))
        batches = predict_batches(
            fitted,
            images,
            top_k=top_k,
            bank=bank,
            hub_correction=hub_correction,
            compose=compose,
            cache=cache,
            out=out,
            sidecar=sidecar,
            overwrite=overwrite,
            min_expected=min_expected,
            like=like,
            allow_missing=allow_missing,
            device=device,
            runtime=runtime,
            tell=tell,
        )
        if run is None and isinstance(fitted, Run):
            console.note(f"run {fitted.name}")
        written = out is not None and writer_for(out).keeps_prompts
        for batch in stack.enter_context(closing(batches)):
            for name, reason in batch.failed.items():
                console.warn(f"{name}: {reason}")
            bad |= batch.failed
            count += len(batch.ids)
            if written:
                continue
            shown = _shown(batch)
            if json:
                predictions += [
                    {"imgId": name, **one} for name, one in zip(batch.ids, shown, strict=True) if one
                ]
                continue
            for name, one in zip(batch.ids, shown, strict=True):
                if "prompts" in one or "composed" in one:
                    console.result("\n".join(_lines(name, one)))
    if bad and not (out is not None and writer_for(out).keeps_every_image):
        console.warn(
            f"{counted(len(bad), 'image', 'images')} could not be used and "
            f"{'was' if len(bad) == 1 else 'were'} left out"
        )
    if json:
        console.result_json(
            {
                "run": str(fitted.path) if isinstance(fitted, Run) else None,
                "head": fitted.head,
                "rows": count,
                "bad": bad,
                "out": str(Path(out)) if out else None,
                "predictions": predictions,
            }
        )
    elif out:
        console.result(f"{Path(out)}: {counted(count, 'prediction', 'predictions')}")


def _shown(batch: Predictions) -> list[dict[str, Any]]:
    """Give what is known of each image beside its vector, as JSON values."""
    from img2prompt_cache.prediction.outputs.base import plain, records

    columns = batch.columns
    shown = [{name: plain(values[row]) for name, values in columns.items()} for row in range(len(batch.ids))]
    for one, prompt in zip(shown, batch.own_prompts or (), strict=False):
        if prompt is not None:
            one["own_prompt"] = prompt
    nearest = batch.nearest
    if nearest is not None:
        for one, found in zip(shown, nearest, strict=True):
            one["prompts"] = records(found)
    return shown


def _lines(name: str, shown: dict[str, Any]) -> list[str]:
    """Lay out what `_shown` gives of one image."""
    head = console.clean(name)
    if "expected" in shown:
        flag = ", flagged" if shown.get("flagged") else ""
        head += f"  (expected cosine {shown['expected']:.3f}{flag})"
    found = [(one["cosine"], one["prompt"], "") for one in shown.get("prompts", ())]
    if "composed" in shown:
        found.append((shown["composed_cosine"], shown["composed"], "  (composed)"))
    lines = [f"  {cosine:.3f}  {console.clean(text)}{kind}" for cosine, text, kind in found]
    if "own_prompt" in shown:
        own = console.clean(shown["own_prompt"])
        lines.insert(0, f"  this picture is in the cache; its own prompt is: {own}")
    return [head, *lines]


def _images(paths: list[str] | None) -> list[str] | None:
    """Give the paths that were named, or those that come on stdin for ``-``."""
    if paths != ["-"]:
        return paths or None
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # one odd name is no reason to drop the list
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
