"""``img2prompt-cache doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console


def doctor(
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the model hub or the package index.")
    ] = False,
    json: console.Json = False,
) -> None:
    """Show what this machine can do: device, number formats, hub, package index, disk, versions."""
    from img2prompt_cache.environment import examine

    found = examine(online=not offline)
    if json:
        console.result_json(found)
        return
    lines = []
    for section, values in found.items():
        lines.append(f"{section}:")
        lines += [f"  {name}: {value}" for name, value in values.items()]
    console.result("\n".join(lines))
