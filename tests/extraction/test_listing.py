"""The listing of a source against the rows of a cache."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.listing import digest_of, digest_of_stamps, extra_columns, match_rows


def table(ids: list[str], prompts: list[str | None] | None = None, **extra: list[str]) -> pa.Table:
    columns = {"imgId": ids, "uri": [f"{i}.png" for i in ids], "prompt": prompts or ["p"] * len(ids), **extra}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def test_rows_of_a_listing_are_found_in_a_cache() -> None:
    ids = pa.chunked_array([["a", "b"], ["c", "z"]])
    listed = table(["d", "c", "a", "e", "b"])
    known = match_rows(listed, ids, np.array([0, 0, 0, 1]), 0)
    assert listed["imgId"].filter(pa.array(known.fresh)).to_pylist() == ["d", "e"]
    assert (known.listed.tolist(), known.rows.tolist()) == ([1, 2, 4], [2, 0, 1])
    assert known.of_source.tolist() == [0, 1, 2]
    assert match_rows(listed, ids[:0], np.array([], np.int64), 0).fresh.all()
    with pytest.raises(UsageError, match="imgId 'c' is cached already from another source"):
        match_rows(listed, ids, np.array([0, 0, 1, 1]), 0)


def test_columns_of_the_users_own_are_kept_under_plain_names() -> None:
    listed = table(["a"], style=["x"], status=["x"], **{"a/b": ["x"], "seed 2": ["x"], "": ["x"], "é": ["x"]})
    assert extra_columns(listed) == ("style", "seed 2", "é")


TEXT = [None, "", "a", "b", "ab", "é", "a boat", "\x00"]
ROWS = st.lists(st.tuples(st.sampled_from(TEXT), st.sampled_from(TEXT)), max_size=12)
SEEDS = st.integers(0, 1 << 32)


def lay_out(rows: list[tuple[str | None, ...]], seed: int) -> pa.Table:
    """A table of these rows, in chunks, slices, null masks and offsets of any kind."""
    choose = random.Random(seed)
    columns = []
    for number in range(2):
        values = [row[number] for row in rows]
        kind = choose.choice([pa.string(), pa.large_string()])
        chunks, start = [], 0
        while start < len(values) or choose.random() < 0.2:
            stop = choose.randint(start, len(values))
            around = choose.choices(TEXT, k=choose.randint(0, 2))
            whole = pa.array([*around, *values[start:stop], *around], kind)
            if choose.random() < 0.5:  # with text below each null, which is not part of the values
                valid = np.array([value is not None for value in whole.to_pylist()], bool)
                filled = pa.array(["x" if value is None else value for value in whole.to_pylist()], kind)
                buffers = [pa.array(valid).buffers()[1], *filled.buffers()[1:]]
                whole = pa.Array.from_buffers(kind, len(whole), buffers)
            chunks.append(whole.slice(len(around), stop - start))
            start = stop
        columns.append(pa.chunked_array(chunks, kind))
    return pa.table(columns, names=["c0", "c1"])


@given(ROWS, SEEDS, SEEDS)
def test_equal_listings_have_equal_digests_however_they_lie_in_memory(
    rows: list[tuple[str | None, ...]], one: int, other: int
) -> None:
    assert lay_out(rows, one)["c0"].to_pylist() == [row[0] for row in rows]
    assert digest_of(lay_out(rows, one)) == digest_of(lay_out(rows, other))


@given(ROWS, ROWS, SEEDS)
def test_other_values_have_another_digest(
    one: list[tuple[str | None, ...]], other: list[tuple[str | None, ...]], seed: int
) -> None:
    assert (digest_of(lay_out(one, seed)) == digest_of(lay_out(other, seed + 1))) == (one == other)


def test_names_and_the_order_of_columns_count() -> None:
    made = [table(["a", "b"]), table(["a", "b"], style=["1", "2"]), table(["a", "b"], style2=["1", "2"])]
    made += [made[1].select(["uri", "imgId", "prompt", "style"]), table(["ab", ""]), table(["", "ab"])]
    assert len({digest_of(each) for each in made}) == len(made)


def test_other_sizes_or_times_have_another_digest() -> None:
    stamps = np.arange(6).reshape(3, 2)
    assert digest_of_stamps(stamps) == digest_of_stamps(np.asfortranarray(stamps))
    assert digest_of_stamps(stamps) != digest_of_stamps(stamps[::-1])
