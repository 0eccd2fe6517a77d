"""``img2prompt-cache predict``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.bank import Bank
    from img2prompt_cache.predict import Predictions
    from img2prompt_cache.runs import Run


def predict(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH ...]",
            help="Images, folders, any source, a cache, or - for a list of paths on stdin. Absent: the rows of "
            "the cache that have no prompt.",
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
            min=0, max=1000, help="Nearest prompts for each image. 3 if absent and there is no --out."
        ),
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompts to choose from. Absent: those of the cache.")
    ] = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    json: console.Json = False,
) -> None:
    """Predict prompt embeddings for images, and show the nearest prompts."""
    from img2prompt_cache.errors import Img2PromptError
    from img2prompt_cache.outputs import open_writer
    from img2prompt_cache.runs import load_head, load_run

    folder = _find(run, Path(cache))
    made = load_run(folder)
    writer = open_writer(out, made.target.width, overwrite=overwrite) if out else None
    wanted = top_k if top_k is not None else (0 if out else 3)
    head = load_head(folder, made)
    choices = _bank(made, folder, bank, device) if wanted else None
    shown: list[dict[str, Any]] = []
    bad: dict[str, str] = {}
    count = 0
    with ExitStack() as stack:
        if writer:
            stack.enter_context(writer)
        for batch in _batches(paths or [], made, head, folder, Path(cache), device):
            for name, reason in batch.bad.items():
                console.note(f"{name}: {reason}")
            bad |= batch.bad
            if not batch.ids:
                continue
            nearest = _nearest(choices, batch, wanted) if choices else None
            if writer:
                writer.write(batch.ids, batch.vectors, nearest)
            count += len(batch.ids)
            for name, found in zip(batch.ids, nearest or [[]] * len(batch.ids), strict=True):
                if json and (nearest or not out):
                    prompts = [{"prompt": prompt, "cosine": round(cosine, 6)} for prompt, cosine in found]
                    shown.append({"imgId": name, "prompts": prompts})
                elif not json and nearest:
                    console.result(
                        "\n".join([name, *(f"  {cosine:.3f}  {prompt}" for prompt, cosine in found)])
                    )
        if not count:
            raise Img2PromptError(f"none of the {len(bad)} images could be used")
    if json:
        console.result_json(
            {
                "run": str(folder),
                "head": made.head,
                "rows": count,
                "bad": bad,
                "out": str(out) if out else None,
                "predictions": shown,
            }
        )
    elif out:
        console.result(f"{out}: {count} predictions")
    if bad:
        console.note(f"{len(bad)} images could not be used and were left out")


def _find(name: str | None, cache: Path) -> Path:
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.runs import find_runs, resolve_run

    if name is not None:
        return resolve_run(name, cache)
    runs = find_runs(cache)
    if not runs:
        raise UsageError(
            f"no run in {cache / 'runs'}; make one with `img2prompt-cache fit`, or name one with --run"
        )
    console.note(f"run {runs[-1].name}")
    return runs[-1]


def _batches(
    paths: list[str], run: Run, head: Any, folder: Path, cache: Path, device: str
) -> Iterator[Predictions]:
    from img2prompt_cache.cache import Cache
    from img2prompt_cache.manifest import NAME
    from img2prompt_cache.predict import load_backbones, predict_cached, predict_images
    from img2prompt_cache.sources import open_paths

    if paths == ["-"]:
        paths = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not paths:
        yield predict_cached(run, head, Cache(_cache_of(run, folder) or cache), with_prompt=False)
    elif len(paths) == 1 and (Path(paths[0]) / NAME).is_file():
        yield predict_cached(run, head, Cache(Path(paths[0])), with_prompt=None)
    else:
        source = open_paths([Path(path) for path in paths])
        table = source.list().table
        backbones = load_backbones(run, device)
        with console.progress("predict", len(table)) as advance:
            for batch in predict_images(head, backbones, source, table):
                advance(len(batch.ids) + len(batch.bad))
                yield batch


def _bank(run: Run, folder: Path, file: Path | None, device: str) -> Bank:
    from img2prompt_cache.bank import Bank
    from img2prompt_cache.cache import Cache
    from img2prompt_cache.dataset import load_prompts
    from img2prompt_cache.encoders import load_encoder
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.fingerprints import require_equal
    from img2prompt_cache.precision import choose_device

    if file is not None:
        encoder = load_encoder(
            run.target.spec,
            clean=run.target.fingerprint.get("clean", "none"),
            device=choose_device(device),
            revision=run.target.revision,
        )
        require_equal(
            f"encoder {run.target.spec}", run.target.fingerprint, encoder.fingerprint, "Fit the run again."
        )
        return Bank.from_file(file, encoder)
    cache = _cache_of(run, folder)
    if cache is None:
        raise UsageError(
            f"the cache of {folder.name} is gone ({run.cache}); name prompts with --bank, or give --top-k 0"
        )
    opened = Cache(cache)
    return Bank.from_pairs(*load_prompts(opened, opened.column("targets", run.target.spec)))


def _cache_of(run: Run, folder: Path) -> Path | None:
    from img2prompt_cache.manifest import NAME

    return next(
        (path for path in (folder.resolve().parent.parent, Path(run.cache)) if (path / NAME).is_file()), None
    )


def _nearest(bank: Bank, batch: Predictions, k: int) -> list[list[tuple[str, float]]]:
    index, cosine = bank.search(batch.vectors, k)
    return [
        [(bank.prompts[at], float(near)) for at, near in zip(row, values, strict=True)]
        for row, values in zip(index, cosine, strict=True)
    ]
