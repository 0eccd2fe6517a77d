"""``img2prompt-cache info``."""

from __future__ import annotations

from img2prompt_cache.tables import counted

from . import console


def info(cache: console.CacheOption = console.DEFAULT_CACHE, json: console.Json = False) -> None:
    """Show what a cache holds, and warn of parts that are missing or have another size than recorded."""
    from img2prompt_cache.cache.reader import FAILED, OK, REMOVED, Cache
    from img2prompt_cache.cache.writer import find_writer
    from img2prompt_cache.sources.several import MORE_PROMPTS

    opened = Cache(cache)
    writer = find_writer(opened.folder)
    status = opened.text("status")["status"]
    several = 0
    if MORE_PROMPTS in opened.manifest.extra:
        others = opened.text(MORE_PROMPTS)[MORE_PROMPTS]
        several = sum(bool(each) for each, was in zip(others, status, strict=True) if was != REMOVED)
    damaged = opened.check_sizes()
    ok, failed, removed = (status.count(each) for each in (OK, FAILED, REMOVED))
    if json:
        console.result_json(
            {
                "rows": opened.rows,
                "ok": ok,
                "failed": failed,
                "removed": removed,
                "several_prompts": several,
                "columns": opened.columns,
                "damaged": [damage.file for damage in damaged],
                "crowded": opened.crowded(),
                "writer": writer,
            }
        )
        return
    preset = opened.manifest.preset
    if writer:
        console.note(f"{writer} is writing this cache")
    lines = [
        f"{cache}: {counted(opened.rows, 'row', 'rows')}, {ok} ok, {failed} "
        f"failed{f', {removed} removed' if removed else ''}"
    ]
    if several:
        lines.append(f"rows with several prompts: {several}")
    if preset:
        lines.append(f"preset {preset['name']}: {preset['reason']}")
    lines += [f"source: {source['root']} ({source['format']})" for source in opened.manifest.sources]
    lines += [
        f"{folder} lacks {counted(count, 'image', 'images')} that could not be read again; "
        + console.spelled("`extract(retry_failed=True)` tries again")
        for folder, count in opened.lacking().items()
    ]
    if damaged:
        more = f", and {counted(len(damaged) - 1, 'more part', 'more parts')}" if len(damaged) > 1 else ""
        lines.append(
            f"{damaged[0].file}: {damaged[0].reason}{more}; `cache.h5` may show their rows as empty; "
            + console.spelled("`repair()` computes them again")
        )
    lines += map(console.crowded, opened.crowded())
    rows = [
        [each["kind"], each["name"], " × ".join(map(str, each["shape"])), each["dtype"], each["bytes"]]
        for each in opened.columns
    ]
    console.result("\n".join([*lines, console.table(["kind", "name", "shape", "dtype", "bytes"], rows)]))
