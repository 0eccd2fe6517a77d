"""Memory for a fit: rows that are held, or read when they are used."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

import img2prompt_cache as ipc
from img2prompt_cache.data.columns import choose_features, choose_target
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.errors import UsageError
from img2prompt_cache.fitting import memory
from img2prompt_cache.fitting.memory import free_memory, hold_rows, read_size
from img2prompt_cache.heads import HEADS, kernel, make_head, neighbours
from img2prompt_cache.numerics import kernel_ridge, row_blocks
from img2prompt_cache.numerics.metrics import unit
from synthetic import make_cache

STREAMS = [name for name in HEADS if make_head(name).streams]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("memory") / "cache", rows=240, groups=60)


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("500 mb", 5 * 10**8), ("2GiB", 2 * 2**30), ("1.5k", 1500), (4096, 4096), ("7B", 7)],
)
def test_amounts_of_memory(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8 gigs", "0", 0, "1e9", "8GBB"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UsageError, match="`memory` is an amount such as 8GB") as caught:
        read_size(text)
    assert caught.value.parameter == "memory"


def test_free_memory_is_a_plausible_number():
    free = free_memory()
    assert free is None or 2**20 < free < 2**60


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        *((name, 10_000) for name in STREAMS),
        pytest.param("kernel", 50, id="landmarks"),
        pytest.param("knn", 50, id="projections"),
    ],
)
@pytest.mark.parametrize("folds", [None, 3])
def test_rows_that_are_read_give_the_same_bits(name, folds, exact, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(row_blocks.in_blocks, "__defaults__", (50,))
    monkeypatch.setattr(kernel, "EXACT", exact)
    monkeypatch.setattr(neighbours, "EXACT", exact)
    monkeypatch.setattr(neighbours, "ROWS", 40)
    monkeypatch.setattr(kernel_ridge, "ROWS", 40)
    notes: list[str] = []
    runs = {}
    for most in ("1GB", "0.2MB"):
        runs[most] = ipc.fit(
            cache,
            name,
            folds=folds,
            settings={"landmarks": 30} if name == "kernel" else None,
            memory=most,
            run=tmp_path / most,
            progress=lambda event: notes.append(event.message),
        )
    said = [note for note in notes if "read when they are used" in note]
    assert len(said) == make_head(name).reads_features
    assert all("`memory` allows 0.2 MB" in each for each in said)
    held, read = runs.values()
    assert read.metrics == held.metrics
    one, other = (load_file(run.folder / "head.safetensors") for run in (held, read))
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


def test_less_memory_than_an_index_takes_is_refused_with_the_number():
    assert not hold_rows(make_head("knn"), 10**6, 1664, "1GB", tell=lambda event: None)
    with pytest.raises(
        UsageError, match=r"'knn' needs at least 400 MB .* of 1,000,000 rows, but `memory` allo"
    ):
        hold_rows(make_head("knn"), 10**6, 1664, "100MB", tell=lambda event: None)
    assert not hold_rows(make_head("knn"), 50_000, 1664, "1MB", tell=lambda event: None)  # it is exact


def test_a_head_that_must_hold_them_is_refused_with_the_number(cache):
    with pytest.raises(UsageError, match=r"240 rows of 416 values take about 1\.2 MB .*allows 0\.01 MB"):
        ipc.fit(cache, "best", memory="10kB")


def test_what_is_added_must_be_held(cache):
    with pytest.raises(UsageError, match="with what is added to it"):
        hold_rows(make_head("ridge"), 240, 416, "10kB", more=True, tell=lambda event: None)


def test_the_mean_head_reads_no_features(cache, monkeypatch):
    opened = ipc.Cache(cache)
    data = load_dataset(opened, choose_features(opened, ()), choose_target(opened, None), hold=False)
    y = np.asarray(data.y)
    monkeypatch.setattr(type(data.X), "__array__", None)
    found = make_head("mean").fit(data.X, y).predict(data.X)
    np.testing.assert_allclose(
        found, np.repeat(unit(y.mean(axis=0, keepdims=True)), len(y), axis=0), atol=1e-6
    )


def test_where_nothing_is_said_half_of_what_is_free_counts(monkeypatch):
    notes: list[str] = []

    def held(name, free):
        monkeypatch.setattr(memory, "free_memory", lambda: free)
        return hold_rows(make_head(name), 100, 10, None, tell=lambda event: notes.append(event.message))

    assert held("ridge", 24_000)  # 3 × 100 × 10 × 4 bytes
    assert not notes
    assert not held("ridge", 23_990)
    assert "read when they are used" in notes[0]
    assert held("best", 12_000)
    with pytest.raises(UsageError, match=r"but 0\.012 MB are free"):
        held("best", 11_990)
    assert held("best", None)


@pytest.mark.parametrize("name", ["mlp", "linear"])
def test_a_head_that_trains_on_views_must_hold_its_rows(name, cache):
    with pytest.raises(UsageError, match="with what is added to it"):
        ipc.fit(cache, name, settings={"views": True}, memory="10kB")
