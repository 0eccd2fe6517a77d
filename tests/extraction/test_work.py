"""The rows of parts, and the sources of a cache."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from img2prompt_cache.cache.reader import FAILED, OK, Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.work import Job, OpenSources, Slice, cached_slice, slice_of


def test_a_slice_knows_its_length_and_whether_it_is_known() -> None:
    fresh = Slice(0, 8, {"imgId": ["a", "b"]})
    assert len(fresh) == 2
    assert not fresh.known
    assert not fresh.was_good(0)
    cached = Slice(0, 8, {"imgId": ["a", "b"], "sha256": ["1", ""], "status": [OK, FAILED]})
    assert cached.known
    assert [cached.was_good(row) for row in range(2)] == [True, False]


def test_a_job_gets_its_rows_of_what_is_fresh() -> None:
    fresh = pa.table(
        {
            "imgId": [*"abcde"],
            "uri": [f"{name}.png" for name in "abcde"],
            "prompt": ["pa", None, "pc", "pd", "pe"],
            "style": [*"12345"],
        }
    )
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
    manifest = Cache(made).manifest
    found = cached_slice(made, Job(1, 8, 16, 0, ()), manifest)
    assert (found.number, found.start, len(found), found.known) == (1, 8, 8, True)
    everything = Cache(made).text(*found.text)
    assert found.text == {name: values[8:16] for name, values in everything.items()}


def test_a_source_is_opened_once_and_only_when_it_is_asked_for(made: Path, tmp_path: Path) -> None:
    entry = Cache(made).manifest.sources[0]
    sources = OpenSources((entry, {**entry, "root": str(tmp_path / "gone")}))
    assert sources.opened == {}
    assert sources[0] is sources[0]
    assert str(sources[0].root) == entry["root"]
    with pytest.raises(UsageError, match="gone"):
        sources[1]
