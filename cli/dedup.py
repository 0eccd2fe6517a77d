"""``img2prompt-cache dedup``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console


def dedup(
    cache: console.CacheOption = console.DEFAULT_CACHE,
    threshold: Annotated[
        float, typer.Option(help="Prompts or images with at least this cosine count as near-identical.")
    ] = 0.9,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="Backbone whose features compare images. Default: the first in the cache."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV file to write. Default: `dedup.csv` in the cache."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    json: console.Json = False,
) -> None:
    """Mark near-identical prompts and images of a cache in a CSV that `fit --only` takes.

    Of rows that are alike the first good one is kept.
    """
    from img2prompt_cache.cache.reader import Cache
    from img2prompt_cache.data.columns import choose_features, choose_target
    from img2prompt_cache.data.dedup import (
        NAME,
        check_free,
        count_duplicates,
        find_duplicates,
        save_duplicates,
    )

    opened = Cache(Path(cache))
    out = out or opened.folder / NAME
    check_free(out, overwrite=overwrite)
    column = choose_features(opened, (features,) if features else ())[0]
    target = choose_target(opened, None) if opened.manifest.of_kind("targets") else None
    found = find_duplicates(opened, threshold, column, target)
    save_duplicates(out, found, overwrite=overwrite)
    good = int((found.image_group >= 0).sum())
    counts = {
        "rows": len(found.ids),
        "good": good,
        "kept": int(found.keep.sum()),
        "similar_prompts": count_duplicates(found.prompt_group),
        "similar_images": count_duplicates(found.image_group),
        "identical_images": found.identical,
    }
    if json:
        console.result_json({"out": str(out), "threshold": threshold, "features": column.spec, **counts})
        return
    console.result(
        f"{out}: {counts['kept']} of {good} good rows kept; {counts['similar_prompts']} rows repeat an "
        f"earlier prompt, {counts['similar_images']} an earlier image, {counts['identical_images']} of them "
        "byte for byte"
    )
