"""What a pass decides before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.plan import (
    Job,
    bytes_needed,
    cached_slice,
    extra_columns,
    find_jobs,
    first_occurrences,
    fresh_rows,
    slice_of,
)


def table(ids: list[str], prompts: list[str | None] | None = None, **extra: list[str]) -> pa.Table:
    columns = {"imgId": ids, "uri": [f"{i}.png" for i in ids], "prompt": prompts or ["p"] * len(ids), **extra}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def test_nothing_is_to_be_done_for_a_whole_cache(made: Path) -> None:
    assert find_jobs(made, Cache(made).manifest, 0, 0) == []


def test_new_rows_are_parts_of_their_own(made: Path) -> None:
    manifest = Cache(made).manifest
    jobs = find_jobs(made, manifest, 18, 5)
    assert [(job.number, job.start, job.stop, job.source) for job in jobs] == [
        *((3, 23, 31, 5), (4, 31, 39, 5), (5, 39, 41, 5))
    ]
    assert all(job.columns == manifest.columns for job in jobs)


def test_parts_that_are_gone_or_short_and_columns_that_are_new_are_to_be_done(cache: Path) -> None:
    manifest = Cache(cache).manifest
    _, features, targets = manifest.columns
    (cache / features.parts[1].file).unlink()
    (cache / targets.parts[1].file).write_bytes(b"short")
    assert [(job.number, job.columns) for job in find_jobs(cache, manifest, 0, 0)] == [
        (1, (features, targets))
    ]
    new = Column("features", "timm:new", "features/timm-new", (4,), "float16", {})
    half = replace(targets, parts=targets.parts[:1])
    jobs = find_jobs(cache, manifest.with_column(half).with_column(new), 1, 0)
    assert [[column.folder for column in job.columns] for job in jobs] == [
        ["features/timm-new"],
        [features.folder, targets.folder, "features/timm-new"],
        [targets.folder, "features/timm-new"],
        ["rows", features.folder, targets.folder, "features/timm-new"],
    ]


def test_the_room_is_estimated_from_the_shapes() -> None:
    features = Column("features", "a", "features/a", (100,), "float16", {})
    targets = Column("targets", "b", "targets/b", (30,), "float32", {})
    job = Job(0, 10, 20, 0, (features, targets))
    assert bytes_needed([job, job]) == 2 * (10 * (200 + 120) + 2 * 4096)
    assert bytes_needed([]) == 0


def test_only_rows_that_are_not_cached_are_fresh() -> None:
    cached = pa.table({"imgId": ["a", "b", "c"], "prompt": ["pa", "", "pc"]})
    listed = table(["d", "c", "a", "e", "b"], ["pd", "pc", "other", None, None])
    fresh, changed = fresh_rows(listed, cached, np.array([0, 0, 0]), 0)
    assert fresh["imgId"].to_pylist() == ["d", "e"]
    assert changed == 1
    assert fresh_rows(listed, cached[:0], np.array([], np.int64), 0) == (listed, 0)
    with pytest.raises(UsageError, match="imgId 'c' is cached already from another source"):
        fresh_rows(listed, cached, np.array([0, 0, 1]), 0)


def test_columns_of_the_users_own_are_kept_under_plain_names() -> None:
    listed = table(["a"], style=["x"], status=["x"], **{"a/b": ["x"], "seed 2": ["x"], "": ["x"], "é": ["x"]})
    assert extra_columns(listed) == ("style", "seed 2", "é")


def test_a_job_gets_its_rows_of_what_is_fresh() -> None:
    fresh = table([*"abcde"], ["pa", None, "pc", "pd", "pe"], style=["1", "2", "3", "4", "5"])
    job = Job(7, 11, 13, 0, ())
    found = slice_of(job, fresh, 10, ("style", "seed"))
    assert (found.number, found.start, len(found), found.known) == (7, 11, 2, False)
    assert found.text == {
        "imgId": ["b", "c"],
        "uri": ["b.png", "c.png"],
        "prompt": ["", "pc"],
        "style": ["2", "3"],
        "seed": ["", ""],
    }


def test_a_job_gets_its_rows_back_from_the_cache(made: Path) -> None:
    part = Cache(made).manifest.columns[0].parts[1]
    found = cached_slice(made, Job(1, 8, 16, 0, ()), part)
    assert (found.number, found.start, len(found), found.known) == (1, 8, 8, True)
    everything = Cache(made).text(*found.text)
    assert found.text == {name: values[8:16] for name, values in everything.items()}


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "é", "a "])), min_size=1))
def test_first_occurrences_are_where_a_list_has_them(chunks: list[list[str]]) -> None:
    prompts = [prompt for chunk in chunks for prompt in chunk]
    found = first_occurrences(pa.chunked_array(chunks, pa.large_string()))
    assert found.dtype == np.int64
    assert found.tolist() == [prompts.index(prompt) for prompt in prompts]
