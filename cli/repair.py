"""``img2prompt-cache repair``."""

from __future__ import annotations

import typer

from img2prompt_cache.tables import counted

from . import console


def repair(
    cache: console.CacheOption = console.DEFAULT_CACHE,
    device: console.DeviceOption = "auto",
    json: console.Json = False,
) -> None:
    """Compute the damaged parts of a cache again from its source; exit code 1 if any is left.

    A part is taken only if it comes out byte for byte as it was. The others are named, with the reason, and
    left as they are.
    """
    from img2prompt_cache.extraction.repair import repair as run

    with console.telling() as tell:
        done = run(cache, device=device, tell=tell)
    say = console.note if json else console.result
    for file in done.parts:
        say(f"{file}: repaired")
    for damage in done.left:
        say(f"{damage.file}: {console.spelled(damage.reason)}")
    if json:
        console.result_json(
            {
                "ok": not done.left,
                "repaired": list(done.parts),
                "damaged": [damage.file for damage in done.left],
            }
        )
    else:
        console.result(
            f"{cache}: {counted(len(done.parts), 'part', 'parts')} repaired, {len(done.left)} left damaged"
        )
    if done.left:
        raise typer.Exit(1)
