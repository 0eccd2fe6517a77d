"""``img2prompt-cache verify``."""

from __future__ import annotations

from pathlib import Path

import typer

from . import console


def verify(cache: console.CacheOption = console.DEFAULT_CACHE, json: console.Json = False) -> None:
    """Re-hash every part of a cache and name what is damaged; exit code 1 if anything is."""
    from img2prompt_cache.cache import Cache

    opened = Cache(Path(cache))
    damaged = opened.verify()
    if json:
        for damage in damaged:
            console.note(f"{damage.file}: {damage.reason}")
        console.result_json({"ok": not damaged, "damaged": [damage.file for damage in damaged]})
    else:
        for damage in damaged:
            console.result(f"{damage.file}: {damage.reason}")
        parts = sum(len(column.parts) for column in opened.manifest.columns)
        console.result(
            f"{cache}: {len(damaged)} of {parts} parts damaged"
            if damaged
            else f"{cache}: {parts} parts, all whole"
        )
    if damaged:
        raise typer.Exit(1)
