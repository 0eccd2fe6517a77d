"""``img2prompt-cache dedup``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from img2prompt_cache.tables import counted

from . import console

if TYPE_CHECKING:
    from img2prompt_cache.extraction.dedup import Deduplicated


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
    move: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Move images that are near-identical to one that stays into this folder, with the texts "
            "beside them. Without --yes, only show which.",
            show_default=False,
        ),
    ] = None,
    link: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Make links in this folder to all images but those that are near-identical to another.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Move the images.")] = False,
    json: console.Json = False,
) -> None:
    """Mark near-identical prompts and images of a cache in a CSV that `fit --only` takes.

    Of rows that are alike the first good one is kept. --move and --link sort the image files instead, by
    images alone; nothing is deleted, and nothing written over.
    """
    from img2prompt_cache.data.dedup import count_duplicates
    from img2prompt_cache.extraction.dedup import dedup as sort_out

    with console.telling() as tell:
        did = sort_out(
            cache,
            threshold,
            features=features,
            out=out,
            move=move,
            link=link,
            yes=yes,
            overwrite=overwrite,
            progress=tell,
        )
    found = did.found
    good = int((found.image_group >= 0).sum())
    counts = {
        "rows": len(found.ids),
        "good": good,
        "kept": int(found.keep.sum()),
        "similar_prompts": count_duplicates(found.prompt_group),
        "similar_images": count_duplicates(found.image_group),
        "identical_images": found.identical,
    }
    sorted_out = move is not None or link is not None
    if json:
        files = {"files": did.files, "done": did.done, "left": did.left} if sorted_out else {}
        written = str(did.out) if did.out else None
        recall = {"recall": found.recall} if found.recall else {}
        console.result_json(
            {"out": written, "threshold": threshold, "features": did.features, **counts, **recall, **files}
        )
        return
    for what, share in found.recall.items():
        console.note(
            f"{what} are many, so not all pairs were compared: {share:.2%} of the near-identical ones were "
            "found, by comparing some with all"
        )
    for name, why in did.left.items():
        console.warn(f"{name} stays: {why}")
    if sorted_out:
        _show_files(did, move=move, link=link)
    if did.out:
        console.result(
            f"{did.out}: {counts['kept']} of {good} good rows kept; {counts['similar_prompts']} rows repeat "
            f"an earlier prompt, {counts['similar_images']} an earlier image, {counts['identical_images']} "
            "of them byte for byte"
        )


def _show_files(did: Deduplicated, *, move: Path | None, link: Path | None) -> None:
    if move is None:
        console.result(f"{link}: links to {counted(len(did.files), 'image', 'images')}")
        return
    for each in did.files:
        console.result(console.clean(f"{each['from']} -> {each['to']}"))
    images = counted(len(did.files), "image", "images")
    if not did.files:
        console.note("there is no image to move")
    elif did.done:
        then = console.spelled("`extract(update=True)` leaves their rows out")
        console.note(f"{images} moved to {move}; {then}")
    else:
        console.note(f"{images} would be moved; --yes moves them")
