"""``img2prompt-cache predict``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    import pyarrow as pa

    from img2prompt_cache.heads.base import Head
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.prediction.bank import Bank
    from img2prompt_cache.prediction.predict import Predictions
    from img2prompt_cache.runs.run import Run
    from img2prompt_cache.sources.base import Source


def predict(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Images, folders, any source, a cache, or - for a list of paths on stdin. Absent: the rows "
            "of the cache that have no prompt.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A run folder, or its name in the cache. Absent: the newest."),
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
            help="Nearest prompts for each image. Absent: 3, or none where there is --out and no --bank.",
        ),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts to choose from: text or a table. Absent: the cache's."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The cache's folder. Absent: the run's own, or `cache/default` to find the run.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    json: console.Json = False,
) -> None:
    """Predict prompt embeddings for images, and show the nearest prompts."""
    from img2prompt_cache.errors import Img2PromptError, UsageError
    from img2prompt_cache.prediction.outputs import open_writer
    from img2prompt_cache.runs.folder import load_head
    from img2prompt_cache.runs.names import cache_of
    from img2prompt_cache.runs.run import load_run

    wanted = top_k if top_k is not None else (3 if bank or not out else 0)
    if not wanted and not out:
        raise UsageError("--top-k 0 without --out leaves nothing to give; name a file with --out")
    folder = _find(run, cache or Path(console.DEFAULT_CACHE))
    made = load_run(folder)
    home = cache or cache_of(folder, made)
    writer = open_writer(out, made.target.width, overwrite=overwrite) if out else None
    head = load_head(folder, made)
    batches = _batches(paths or [], made, head, home, device)
    choices = _bank(made, home, bank, device) if wanted else None
    if run is None:
        console.note(f"run {folder.name}")
    predictions: list[dict[str, Any]] = []
    bad: dict[str, str] = {}
    count = 0
    with ExitStack() as stack:
        if writer:
            stack.enter_context(writer)
        for batch in batches:
            for name, reason in batch.bad.items():
                console.note(f"{name}: {reason}")
            bad |= batch.bad
            count += len(batch.ids)
            if not batch.ids:
                continue
            nearest = _nearest(choices, batch, wanted) if choices else None
            if writer:
                writer.write(batch.ids, batch.vectors, nearest)
            if nearest is None or (writer and writer.keeps_prompts):
                continue
            for name, found in zip(batch.ids, nearest, strict=True):
                if json:
                    prompts = [{"prompt": prompt, "cosine": round(cosine, 6)} for prompt, cosine in found]
                    predictions.append({"imgId": name, "prompts": prompts})
                else:
                    lines = [f"  {cosine:.3f}  {console.clean(prompt)}" for prompt, cosine in found]
                    console.result("\n".join([console.clean(name), *lines]))
        if not count:
            raise Img2PromptError(f"none of the {len(bad)} images could be used")
    if bad:
        console.note(f"{len(bad)} images could not be used and were left out")
    if json:
        console.result_json(
            {
                "run": str(folder),
                "head": made.head,
                "rows": count,
                "bad": bad,
                "out": str(out) if out else None,
                "predictions": predictions,
            }
        )
    elif out:
        console.result(f"{out}: {count} predictions")


def _find(name: str | None, cache: Path) -> Path:
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.runs.names import find_runs, resolve_run

    if name is not None:
        return resolve_run(name, cache)
    runs = find_runs(cache)
    if not runs:
        raise UsageError(
            f"no run in {cache / 'runs'}; make one with `img2prompt-cache fit`, or name one with --run"
        )
    return runs[-1]


def _batches(paths: list[str], run: Run, head: Head, home: Path | None, device: str) -> Iterator[Predictions]:
    """Find out what to predict for, and check that it can be done; then go through it batch by batch."""
    from img2prompt_cache.cache.manifest_file import NAME
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.prediction.predict import load_backbones, predict_cached
    from img2prompt_cache.sources import list_images

    if not paths:
        if home is None:
            raise UsageError(
                f"the cache of the run is gone ({run.cache}); name images, or a cache with --cache"
            )
        return iter([predict_cached(run, head, Cache(home), with_prompt=False)])
    if len(paths) == 1 and (Path(paths[0]) / NAME).is_file():
        return iter([predict_cached(run, head, Cache(Path(paths[0])), with_prompt=None)])
    if paths == ["-"]:
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # one odd name is no reason to drop the list
        paths = [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    source, listing = list_images([Path(path) for path in paths])
    for line in listing.summary.notes:
        console.note(line)
    return _streamed(head, load_backbones(run, device), source, listing.table)


def _streamed(
    head: Head, backbones: dict[str, Backbone], source: Source, table: pa.Table
) -> Iterator[Predictions]:
    from img2prompt_cache.prediction.predict import predict_images

    with console.progress("predict", len(table)) as advance:
        for batch in predict_images(head, backbones, source, table):
            advance(len(batch.ids) + len(batch.bad))
            yield batch


def _bank(run: Run, home: Path | None, file: Path | None, device: str) -> Bank:
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.columns import used_column
    from img2prompt_cache.data.dataset import load_prompts
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.models.devices import choose_device
    from img2prompt_cache.models.encoders.base import load_encoder
    from img2prompt_cache.models.fingerprints import require_equal
    from img2prompt_cache.prediction.bank import Bank

    target = run.target
    if file is not None:
        encoder = load_encoder(
            target.spec,
            clean=target.fingerprint.get("clean", "none"),
            device=choose_device(device),
            revision=target.revision,
        )
        require_equal(f"encoder {target.spec}", target.fingerprint, encoder.fingerprint, _ADVICE)
        return Bank.from_file(file, encoder, console.progress)
    if home is None:
        raise UsageError(
            f"the cache of the run is gone ({run.cache}); name prompts with --bank, or --top-k 0"
        )
    opened = Cache(home)
    column = used_column(opened, target, _ADVICE, "targets")
    return Bank.from_pairs(*load_prompts(opened, column))


def _nearest(bank: Bank, batch: Predictions, k: int) -> list[list[tuple[str, float]]]:
    index, cosine = bank.search(batch.vectors, k)
    return [
        [(bank.prompts[at], float(near)) for at, near in zip(row, values, strict=True)]
        for row, values in zip(index, cosine, strict=True)
    ]


_ADVICE = "Prompts are found only among embeddings made as those the run was fitted on: fit it again."
