"""``img2prompt-cache extract``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from img2prompt_cache.tables import counted

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.extraction.look import Look
    from img2prompt_cache.extraction.report import Report
    from img2prompt_cache.extraction.shards import ShardReport
    from img2prompt_cache.progress import Event

SOURCE_OPTIONS = ("format", "prompts", "id_column", "prompt_column")
_MORE = "What to store besides features"


def extract(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of images, table, tar shards or parquet file, or NAME=PATH; several go into one "
            "cache, with a column source. Default: the cache's own; for a new cache `images/` in the current "
            "folder or, where there is none but a table of prompts, all images below the current folder.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Table of prompts: CSV, TSV, JSON, JSONL, parquet or captions.txt."
        ),
    ] = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    preset: Annotated[
        str,
        typer.Option(help="Models of a new cache: auto, standard (model hub) or packaged (package index)."),
    ] = "auto",
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="An image encoder to run, e.g. `timm:resnet50.a1_in1k`, or NAME=SPEC to name its column; "
            "repeat the option for several.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Text encoder of the targets: `st:all-MiniLM-L6-v2`, `st:local-dir:PATH` for a folder of "
            "sentence-transformers, or an open_clip text tower.",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Format of the source, if auto fails: imagefolder, table, webdataset, parquet, "
            "sidecar, metadata or folder.",
        ),
    ] = "auto",
    id_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the table with ids or file names.")
    ] = None,
    prompt_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the table with prompts.")
    ] = None,
    clean: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="Clean prompts before encoding: none (default), light or seed."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="Number format: auto, fp32, bf16 or fp16. auto: bf16 where possible."),
    ] = "auto",
    runtime: console.RuntimeOption = "auto",
    device: console.DeviceOption = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=1 << 16, help="Images encoded together, fixed when the cache is made. Default: 32."
        ),
    ] = None,
    part_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1 << 20,
            help="Rows in each part file, fixed when the cache is made; doubled where there would be more "
            "than 256 parts. Default: 1024.",
        ),
    ] = None,
    trunk: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=1,
            help="Also store the input of the last K blocks, so that these blocks can be fine-tuned.",
            rich_help_panel=_MORE,
        ),
    ] = None,
    trunk_dtype: Annotated[
        str,
        typer.Option(
            help="float16, or int8 with one scale per channel, which takes half the space.",
            rich_help_panel=_MORE,
        ),
    ] = "float16",
    levels: Annotated[
        str | None,
        typer.Option(
            metavar="top|multi",
            help="top stores the pooled output only; multi also stores pooled outputs of inner layers. "
            "Default: multi for the backbones of a preset.",
            rich_help_panel=_MORE,
        ),
    ] = None,
    names: Annotated[
        bool,
        typer.Option(
            "--names",
            help="Also store what the backbone's own classifier sees: a mean of class names' embeddings.",
            rich_help_panel=_MORE,
        ),
    ] = False,
    second_view: Annotated[
        str,
        typer.Option(
            help="none, or squash: the same of the whole image, squashed to the input size and mirrored.",
            rich_help_panel=_MORE,
        ),
    ] = "none",
    views: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Also store N augmented views of the features, and of what else this command stores.",
            rich_help_panel=_MORE,
        ),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror half of the augmented views.", rich_help_panel=_MORE)
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try failed images again; other rows stay as they are."),
    ] = False,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Encode replaced images again, take over changed prompts, leave out images that are gone.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare the bytes of every image; default: only where size or time differ."
        ),
    ] = False,
    engine: console.EngineOption = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of parallel processes. Default: one for each GPU, or one without a GPU.",
            rich_help_panel=console.MACHINES,
        ),
    ] = None,
    ray_address: console.RayAddressOption = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Compute only share I of N, for a job array; when all are done, run --finish.",
            rich_help_panel=console.MACHINES,
        ),
    ] = None,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish",
            help="Combine what the shards computed, and add the targets.",
            rich_help_panel=console.MACHINES,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what the source holds and what a pass would do; load no model."),
    ] = False,
    json: console.Json = False,
) -> None:
    """Read every image once and cache its features and its prompt's embedding.

    Run it again to continue after an interruption, to add new images, or, with another `--backbone`, to add a
    column. Nothing is computed twice.
    """
    options: dict[str, Any] = {
        "prompts": prompts,
        "preset": preset,
        "backbones": tuple(backbone or ()),
        "encoder": encoder,
        "format": format,
        "id_column": id_column,
        "prompt_column": prompt_column,
        "clean": clean,
        "precision": precision,
        "runtime": runtime,
        "device": device,
        "batch_size": batch_size,
        "part_rows": part_rows,
        "trunk": trunk,
        "trunk_dtype": trunk_dtype,
        "levels": levels,
        "names": names,
        "second_view": second_view,
        "views": views,
        "flip": flip,
        "update": update,
        "check": check,
    }
    if dry_run:
        from img2prompt_cache.errors import UsageError
        from img2prompt_cache.extraction.look import look
        from img2prompt_cache.extraction.named import open_sources
        from img2prompt_cache.sources import SourceOptions, table_of_prompts

        if shard is not None or finish or retry_failed:
            raise UsageError(
                "`dry_run` cannot be combined with `shard`, `finish` or `retry_failed`",
                parameter="dry_run",
            )
        named = SourceOptions(format, table_of_prompts(prompts), id_column, prompt_column)
        sources = open_sources(source or None, named, Path(cache))
        more = {name: value for name, value in options.items() if name not in SOURCE_OPTIONS}
        with console.telling() as show:
            seen = [look(one, cache, **more, progress=show) for one in sources]
        _tell_looks(seen, json)
        return
    from img2prompt_cache.extraction.extract import extract as run
    from img2prompt_cache.extraction.shards import ShardReport

    reports = []
    with console.telling() as show:

        def tell(event: Event) -> None:
            show(event)
            if event.kind == "report":
                reports.append(event.value)

        run(
            source or None,
            cache,
            **options,
            retry_failed=retry_failed,
            engine=engine,
            workers=workers,
            ray_address=ray_address,
            shard=shard,
            finish=finish,
            progress=tell,
        )
    folder, report = Path(cache), reports[-1]
    if isinstance(report, ShardReport):
        _tell_shard(folder, shard or "", report, json)
    elif json:
        each = [_data(folder, one) for one in reports]
        console.result_json({**each[-1], **({"sources": each} if each[1:] else {})})
    else:
        console.result("\n".join(_text(folder, one) for one in reports))


def _tell_looks(looks: list[Look], json: bool) -> None:
    if not json:
        console.result("\n".join(console.spelled(str(seen)) for seen in looks))
        return
    each = [_look_data(seen) for seen in looks]
    console.result_json({"sources": each} if each[1:] else each[0])


def _look_data(seen: Look) -> dict[str, object]:
    plan = seen.plan
    return {
        **{name: getattr(seen, name) for name in ("source", "format", "why")},
        **{name: getattr(seen, name) for name in ("pairs", "without_prompt", "without_image")},
        **{name: getattr(seen, name) for name in ("same_prompt", "same_image", "unreadable", "readers")},
        "first": list(seen.first),
        "notes": [console.spelled(line) for line in seen.notes],
        "rows": plan.rows,
        "new": plan.fresh,
        "work": plan.work,
        **{name: getattr(plan.changes, name) for name in ("encoded_again", "taken_over", "left_out")},
        "bytes": plan.bytes,
        "columns": list(plan.columns),
        "unmeasured": list(seen.unmeasured),
        "changes": plan.changes.summary(),
    }


def _tell_shard(folder: Path, shard: str, report: ShardReport, json: bool) -> None:
    if json:
        console.result_json(
            {
                "cache": str(folder),
                "shard": shard,
                "parts": report.parts,
                "rows": report.rows,
                "left": report.left,
                "seconds": round(report.seconds, 3),
                "stages": {name: round(seconds, 3) for name, seconds in report.stages.items()},
            }
        )
        return
    then = (
        "all are there: run --finish"
        if not report.left
        else f"{counted(report.left, 'part is', 'parts are')} left to others"
    )
    console.result(
        f"{folder}, shard {shard}: {counted(report.parts, 'part', 'parts')}, "
        f"{counted(report.rows, 'row', 'rows')} in {report.seconds:.1f} s; {then}"
    )


def _data(folder: Path, report: Report) -> dict[str, object]:
    return {
        "cache": str(folder),
        "rows": report.rows,
        "ok": report.ok,
        "failed": report.failed,
        "removed": report.removed,
        "new": report.fresh,
        "identical": report.identical,
        "without_prompt": report.without_prompt,
        "reasons": report.reasons,
        "missing": report.missing,
        **{name: getattr(report.changes, name) for name in ("encoded_again", "taken_over", "left_out")},
        "changes": report.changes.summary(),
        "seconds": round(report.seconds, 3),
        "stages": {name: round(seconds, 3) for name, seconds in report.stages.items()},
    }


def _text(folder: Path, report: Report) -> str:
    lines = [
        f"{folder}: {counted(report.rows, 'row', 'rows')}, {report.ok} ok, {report.failed} failed"
        f"{f', {report.removed} removed' if report.removed else ''}; {report.fresh} new, "
        f"{counted(report.identical, 'identical image', 'identical images')}, "
        f"{report.without_prompt} without prompt; {report.seconds:.1f} s"
    ]
    lines += [f"  failed: {count} × {reason}" for reason, count in report.reasons.items()]
    lines += [
        f"  {column} lacks {counted(count, 'image', 'images')} that could not be read again; "
        "--retry-failed tries again"
        for column, count in report.missing.items()
    ]
    total = sum(report.stages.values())
    if total:
        shares = sorted(report.stages.items(), key=lambda item: -item[1])
        lines.append("  work: " + ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in shares))
    return "\n".join(lines)
