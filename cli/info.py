"""``img2prompt-cache info``."""

from __future__ import annotations

from pathlib import Path

from . import console


def info(cache: console.CacheOption = console.DEFAULT_CACHE, json: console.Json = False) -> None:
    """Say what a cache holds."""
    from img2prompt_cache.cache.reader import OK, Cache

    opened = Cache(Path(cache))
    ok = opened.text("status")["status"].count(OK)
    columns = [
        {
            "name": column.spec or "rows",
            "kind": column.kind,
            "shape": [column.rows, *column.shape],
            "dtype": column.dtype,
            "bytes": column.bytes,
        }
        for column in opened.manifest.columns
    ]
    if json:
        console.result_json({"rows": opened.rows, "ok": ok, "failed": opened.rows - ok, "columns": columns})
        return
    preset = opened.manifest.preset
    lines = [f"{cache}: {opened.rows} rows, {ok} ok, {opened.rows - ok} failed"]
    if preset:
        lines.append(f"preset {preset['name']}: {preset['reason']}")
    lines += [f"source: {source['root']} ({source['format']})" for source in opened.manifest.sources]
    lines += [
        f"{folder} lacks {count} images that could not be read again; `extract --retry-failed` tries them"
        for folder, count in opened.manifest.missing.items()
    ]
    rows = [
        [c.kind, c.spec or "rows", " × ".join(map(str, (c.rows, *c.shape))), c.dtype, c.bytes]
        for c in opened.manifest.columns
    ]
    console.result("\n".join([*lines, console.table(["kind", "name", "shape", "dtype", "bytes"], rows)]))
