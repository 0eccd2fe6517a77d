"""Building a listing with its summary, and checking that ids are unique."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.errors import UsageError
from img2prompt_cache.sources.base import Listing, Summary
from img2prompt_cache.sources.remote import RemoteRoot
from img2prompt_cache.sources.several import (
    LONGEST_PROMPT,
    MORE_PROMPTS,
    MOST_PROMPTS,
    distinct,
    pack,
    unpack,
)
from img2prompt_cache.sources.tablefile import blank_to_null
from img2prompt_cache.tables import counted

Strings: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str | None]
_Column: TypeAlias = pa.Array | pa.ChunkedArray


def make_listing(
    ids: Strings,
    uris: Strings,
    prompts: Strings,
    root: Path | RemoteRoot,
    *,
    extras: Mapping[str, pa.ChunkedArray] | None = None,
    without_image: int = 0,
    notes: Sequence[str] = (),
) -> Listing:
    """Build a listing of n rows.

    Parameters
    ----------
    ids, uris, prompts : strings
        n values each; a prompt may be null, and a blank one becomes null.
    root : pathlib.Path or RemoteRoot
        Root of the source, for error messages.
    extras : mapping of str to pyarrow.ChunkedArray, optional
        Further columns, n values each; `several.MORE_PROMPTS` among them, where images have several prompts.
    without_image : int
        Number of prompts that were left out because they have no image.
    notes : sequence of str

    Raises
    ------
    UsageError
        If there are no rows, or two rows have the same id.
    """
    columns = {"imgId": ids, "uri": uris, "prompt": prompts, **(extras or {})}
    columns = {name: _column(values) for name, values in columns.items()}
    overlong = pc.greater(pc.fill_null(pc.utf8_length(columns["prompt"]), 0), LONGEST_PROMPT)
    count = pc.sum(overlong).as_py()
    if count:
        columns["prompt"] = pc.if_else(overlong, pa.scalar(None, pa.string()), columns["prompt"])
        notes = (
            *notes,
            f"{counted(count, 'prompt', 'prompts')} of more than {LONGEST_PROMPT} characters left out",
        )
    columns["prompt"] = blank_to_null(columns["prompt"])
    if MORE_PROMPTS in columns:
        columns, several = _with_several(columns)
        notes = (*several, *notes)
    table = pa.table(columns)
    if not table.num_rows:
        raise UsageError("; ".join((f"{root} holds no images", *notes)))
    twice = first_duplicate(table["imgId"])
    if twice is not None:
        both = " and ".join(table.filter(pc.equal(table["imgId"], twice))["uri"].to_pylist()[:2])
        raise UsageError(f"{root}: the imgId {twice!r} is there twice ({both}); rename or remove one")
    without_prompt = table["prompt"].null_count
    summary = Summary(table.num_rows - without_prompt, without_prompt, without_image, tuple(notes))
    return Listing(table, summary)


def _with_several(columns: dict[str, _Column]) -> tuple[dict[str, _Column], tuple[str, ...]]:
    """Keep the distinct prompts of each image, of at most `MOST_PROMPTS`, and note how many have several."""
    first, more = columns["prompt"].to_pylist(), columns.pop(MORE_PROMPTS).to_pylist()
    too_many = 0
    for row, text in enumerate(more):
        if text:
            others = (prompt for prompt in unpack(text) if len(prompt) <= LONGEST_PROMPT)
            prompts = distinct([first[row], *others])
            too_many += len(prompts) > MOST_PROMPTS
            first[row], more[row] = next(iter(prompts), None), pack(prompts[1:MOST_PROMPTS])
    count = sum(map(bool, more))
    if not count:
        return columns, ()
    what = counted(count, "image has", "images have")
    notes = [f"{what} several prompts; the first counts where there can be only one"]
    if too_many:
        what = counted(too_many, "image has", "images have")
        notes.append(f"{what} more than {MOST_PROMPTS} prompts, of which the first {MOST_PROMPTS} are kept")
    texts = {"prompt": pa.array(first, pa.string()), MORE_PROMPTS: pa.array(more, pa.string())}
    return {**columns, **texts}, tuple(notes)


def text_columns(columns: Mapping[str, Sequence[str]]) -> dict[str, pa.ChunkedArray]:
    """Make further columns of a listing, leaving out those that are empty in all rows."""
    made = {name: pa.array(texts, pa.string()) for name, texts in columns.items() if any(texts)}
    return {name: pa.chunked_array([column]) for name, column in made.items()}


def first_duplicate(values: pa.Array | pa.ChunkedArray) -> str | None:
    """Find the first value, in code-point order, that occurs more than once; None if all differ."""
    if pc.count_distinct(values).as_py() == len(values):
        return None
    counts = pc.value_counts(values)
    return str(pc.min(counts.field("values").filter(pc.greater(counts.field("counts"), 1))).as_py())


def _column(values: Strings) -> pa.Array | pa.ChunkedArray:
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, pa.string())
    # HDF5 cannot store NUL characters in strings, and prompts do not need them.
    return pc.replace_substring(column, "\0", "")
