"""``img2prompt-cache verify``."""

from __future__ import annotations

import typer

from img2prompt_cache.tables import counted

from . import console


def verify(cache: console.CacheOption = console.DEFAULT_CACHE, json: console.Json = False) -> None:
    """Hash every part of a cache again and name what is damaged; exit code 1 if anything is.

    Files among the parts that the manifest does not record are named, too; they are never read.
    """
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.cache.writer import find_writer

    opened = Cache(cache)
    damaged = opened.verify()
    writer = find_writer(opened.folder)
    unknown = [] if writer else opened.unrecorded()
    say = console.note if json else console.result
    for damage in damaged:
        say(f"{damage.file}: {damage.reason}")
    for file in unknown:
        say(f"{file}: not recorded in the manifest, so it is never read")
    if writer:
        console.warn(f"{writer} is writing this cache: what it has not recorded yet was not looked at")
    for folder in opened.crowded():
        say(console.crowded(folder))
    if json:
        console.result_json(
            {
                "ok": not damaged,
                "damaged": [damage.file for damage in damaged],
                "unknown": unknown,
                "crowded": opened.crowded(),
                "writer": writer,
            }
        )
    else:
        parts = sum(len(column.parts) for column in opened.manifest.columns)
        console.result(
            f"{cache}: {len(damaged)} of {counted(parts, 'part', 'parts')} damaged; `img2prompt-cache "
            "repair` computes them again"
            if damaged
            else f"{cache}: {parts} parts, all whole"
        )
    if damaged:
        raise typer.Exit(1)
