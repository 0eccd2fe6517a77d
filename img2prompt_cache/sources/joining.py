"""Rows of a table that are of one image, joined to one row with several prompts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from img2prompt_cache.sources.several import MORE_PROMPTS, distinct, pack, unpack
from img2prompt_cache.sources.tablefile import Prompts


def join_rows(ids: pa.ChunkedArray, prompts: Prompts) -> tuple[pa.ChunkedArray, Prompts]:
    """Join the rows that have the same id: one row for each image, with all of its prompts.

    Parameters
    ----------
    ids : pyarrow.ChunkedArray
        n strings, to be compared in place of `prompts.ids`.
    prompts : Prompts
        n rows.

    Returns
    -------
    ids : pyarrow.ChunkedArray
        m ≤ n different ones, in the order of their first rows.
    prompts : Prompts
        m rows. Prompts are in the order of the rows; of other columns the value of the first row is kept, and
        a note says of which columns the rows differ.
    """
    if pc.count_distinct(ids).as_py() == len(ids):
        return ids, prompts
    encoded = pa.chunked_array([ids.combine_chunks()]).dictionary_encode().chunk(0)
    row = encoded.indices.to_numpy()
    _, first = np.unique(row, return_index=True)
    several: list[list[str | None]] = [[] for _ in first]
    packed = prompts.extras.get(MORE_PROMPTS)
    more = [""] * len(row) if packed is None else packed.to_pylist()
    for number, prompt, others in zip(row.tolist(), prompts.prompts.to_pylist(), more, strict=True):
        several[number] += [prompt, *unpack(others or "")]
    texts = [distinct(each) for each in several]
    extras, notes = {}, []
    for name, column in prompts.extras.items():
        if name != MORE_PROMPTS:
            extras[name] = column.take(pa.array(first))
            if not extras[name].take(pa.array(row)).equals(column):
                notes.append(f"column {name!r} differs between rows of one image; the first value is kept")
    firsts = pa.array([next(iter(each), None) for each in texts], pa.string())
    extras[MORE_PROMPTS] = pa.chunked_array([pa.array([pack(each[1:]) for each in texts], pa.string())])
    joined = Prompts(
        prompts.ids.take(pa.array(first)), pa.chunked_array([firsts]), extras, (*prompts.notes, *notes)
    )
    return ids.take(pa.array(first)), joined
