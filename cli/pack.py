"""``img2prompt-cache pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from img2prompt_cache.tables import counted

from . import console


def pack(
    out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="The file to write.", show_default=False)],
    cache: console.CacheOption = console.DEFAULT_CACHE,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.h5 if it is there.")] = False,
    json: console.Json = False,
) -> None:
    """Write every column of a cache into one portable HDF5 file that any reader opens."""
    from img2prompt_cache.cache.export import pack as run
    from img2prompt_cache.cache.reader import Cache

    opened = Cache(cache)
    with console.telling() as tell:
        size = run(opened, out, overwrite=overwrite, tell=tell)
    if json:
        console.result_json({"out": str(out), "rows": opened.rows, "bytes": size})
    else:
        console.result(f"{out}: {counted(opened.rows, 'row', 'rows')}, {size / 1e6:,.1f} MB")
