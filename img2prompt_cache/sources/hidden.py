"""Prompts beside and inside images that a table was preferred to, so that the user hears of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing
from img2prompt_cache.sources.embedded.prompts import read_prompt
from img2prompt_cache.sources.names import IMAGE_SUFFIXES
from img2prompt_cache.sources.scan import Walk, count_note
from img2prompt_cache.sources.sidecar import SidecarSource, pair, states_prompt
from img2prompt_cache.tables import counted

WITHOUT, WITH = 20, 5
"""Number of images that are opened: of those without a prompt in the table or, if all have one, of all."""


def note_hidden_prompts(listing: Listing, walk: Walk, table: Path) -> tuple[str, ...]:
    """Look whether some of the first images have a prompt beside or inside them that the listing leaves out.

    Parameters
    ----------
    listing : Listing
        Of `table`; its uris are relative to the root of `walk`, a folder.
    walk : Walk
    table : pathlib.Path
        Whose prompts were taken.

    Returns
    -------
    tuple of str
        A note for each format that has prompts: of how many images, and how to read them.
    """
    uris = listing.table["uri"]
    lacking = uris.filter(pc.is_null(listing.table["prompt"]))
    first = (lacking.slice(0, WITHOUT) if len(lacking) else uris.slice(0, WITH)).to_pylist()
    which = counted(len(first), "image", "images") + (
        f" without a prompt in {table.name}" if len(lacking) else ""
    )
    inside = [name for name in first if read_prompt(walk.root / name)]
    return tuple(
        note
        for names, place, format in (
            (_beside(first, walk), "beside", "sidecar"),
            (inside, "inside", "metadata"),
        )
        for note in count_note(
            names,
            *(
                f'of the first {which} {have} a prompt {place} them: `format="{format}"` reads it, and not '
                f"{table.name}"
                for have in ("has", "have")
            ),
        )
    )


def _beside(images: Sequence[str], walk: Walk) -> list[str]:
    files = [
        name for name in walk.scan(SidecarSource.suffixes).files if not name.lower().endswith(IMAGE_SUFFIXES)
    ]
    try:
        pairs, _ = pair(images, files) if files else ({}, [])
    except UsageError:  # a text that may belong to two images
        return []
    return [
        image for image in images if any(states_prompt(walk.root / name) for name in pairs.get(image, ()))
    ]
