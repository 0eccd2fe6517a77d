"""Several folders below a source that have a table of prompts each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing, Summary
from img2prompt_cache.sources.findtables import any_below, find_folders, with_images
from img2prompt_cache.sources.listing import make_listing
from img2prompt_cache.sources.matching import UnmatchedTableError
from img2prompt_cache.sources.names import IMAGE_SUFFIXES, without_originals, without_suffix
from img2prompt_cache.sources.scan import Scan, Walk, count_note


def list_folders(
    folders: Sequence[str], walk: Walk, list_folder: Callable[[Path], Listing], notes: tuple[str, ...] = ()
) -> Listing:
    """List folders that have tables, each with its own images, and then the images outside of them.

    Parameters
    ----------
    folders : sequence of str
        Relative to the root of `walk`; none is below another one.
    walk : Walk
    list_folder : callable
        Lists a folder by its own tables.
    notes : tuple of str

    Returns
    -------
    Listing
        An imgId begins with the folder.

    Raises
    ------
    UnmatchedTableError
        If no table is in a folder with images, or none of them has a row that names one.
    UsageError
        If one of them has none, but others have; or as `list_folder`.
    """
    used = with_images(folders, walk)
    if not used:
        first = ", ".join(f"{folder}/" for folder in folders[:3])
        raise UnmatchedTableError(
            f"tables of prompts in {first} lie in folders without images, so it is not clear which of them "
            "belongs to the images; name one with `prompts`",
            parameter="prompts",
        )
    listed: dict[str, Listing] = {}
    unmatched: list[UnmatchedTableError] = []
    for folder in used:
        try:
            listed[folder] = list_folder(walk.root / folder)
        except UnmatchedTableError as error:
            unmatched.append(error)
    if unmatched:
        raise UsageError(str(unmatched[0]), parameter=unmatched[0].parameter) if listed else unmatched[0]
    told = [f"{folder}/: {line}" for folder, each in listed.items() for line in each.summary.notes]
    left_out = [folder for folder in folders if folder not in listed]
    rest = _outside(used, walk)
    parts = [_moved(each.table, f"{folder}/") for folder, each in listed.items()]
    summaries = [each.summary for each in (*listed.values(), *rest)]
    table = pa.concat_tables([*parts, *(each.table for each in rest)], promote_options="default")
    for number, name in enumerate(table.column_names[3:], 3):
        table = table.set_column(number, name, table[name].fill_null(""))
    return Listing(
        table,
        Summary(
            sum(each.pairs for each in summaries),
            sum(each.without_prompt for each in summaries),
            sum(each.without_image for each in summaries),
            (
                *notes,
                *count_note(
                    [f"{folder}/" for folder in used],
                    "folder has a table of prompts, which is read with the images of that folder",
                    "folders have tables of prompts, each of which is read with the images of its folder",
                ),
                *count_note(
                    [f"{folder}/" for folder in left_out],
                    "folder with a table of prompts, but without images, left out",
                    "folders with tables of prompts, but without images, left out",
                ),
                *told,
                *(line for each in rest for line in each.summary.notes),
            ),
        ),
    )


def note_unread_folders(listing: Listing, walk: Walk, table: Path) -> tuple[str, ...]:
    """Note the folders with own tables and with images that have no prompt in the table that was read.

    Parameters
    ----------
    listing : Listing
        Of `table`; its uris are relative to the root of `walk`, a folder.
    walk : Walk
    table : pathlib.Path
    """
    if not listing.summary.without_prompt:
        return ()
    lacking = Scan(sorted(listing.table["uri"].filter(pc.is_null(listing.table["prompt"])).to_pylist()))
    unread = [folder for folder in find_folders(walk) if any_below(folder, lacking)]
    unread = [folder for folder in unread if walk.root / folder not in table.parents]
    return count_note(
        [f"{folder}/" for folder in unread],
        f"folder has images without a prompt and a table of its own, which is not read beside {table.name}: "
        "name the folder as a source, or name the table with `prompts`",
        "folders have images without a prompt and tables of their own, which are not read beside "
        f"{table.name}: "
        "name each folder as a source, or a table with `prompts`",
    )


def _moved(table: pa.Table, prefix: str) -> pa.Table:
    """Make the ids and uris of a listing of a folder relative to the source."""
    for number, name in enumerate(("imgId", "uri")):
        table = table.set_column(number, name, pc.binary_join_element_wise(prefix, table[name], ""))
    return table


def _outside(folders: Sequence[str], walk: Walk) -> list[Listing]:
    """List the images that are in none of the folders, and what was skipped; nothing if there are none."""
    prefixes = tuple(f"{folder}/" for folder in folders)
    images = [name for name in walk.scan(IMAGE_SUFFIXES).files if not name.startswith(prefixes)]
    kept, _ = without_originals(images)
    if not kept:
        return []
    listing = make_listing([without_suffix(name) for name in kept], kept, [None] * len(kept), walk.root)
    note = count_note(kept, "image in no such folder", "images in no such folder")
    return [replace(listing, summary=replace(listing.summary, notes=note))]
