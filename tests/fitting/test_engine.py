"""Fits whose passes over the rows are shared by workers, which get everything pickled."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file

import img2prompt_cache as ipc
from img2prompt_cache.cache.mapped import MappedViews
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.heads import HEADS, head_class, kernel
from img2prompt_cache.numerics import kernel_ridge, ridge_path, row_blocks, workers
from pickling import Pickling
from synthetic import make_cache

SHARED = [name for name in HEADS if head_class(name).shares]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("engine") / "cache", rows=240, groups=60)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 50 rows, and what many rows have besides: several blocks, landmarks, a sample of the rows."""
    monkeypatch.setattr(row_blocks.over_rows, "__defaults__", (50,))
    monkeypatch.setattr(row_blocks.in_blocks, "__defaults__", (50,))
    monkeypatch.setattr(kernel_ridge, "ROWS", 25)
    monkeypatch.setattr(kernel, "EXACT", 60)
    monkeypatch.setattr(ridge_path, "MAX_SCORED", 100)


def fitted(cache, name, folder, **more):
    """Metrics and arrays of a run."""
    settings = {"landmarks": 30} if name == "kernel" else None
    run = ipc.fit(cache, name, settings=settings, run=folder, leakage_gap=False, **more)
    return run.metrics, load_file(run.folder / "head.safetensors")


def assert_same(one, other):
    """The same numbers but for rounding: sums are added in another order."""
    for key, value in one[0].items():
        if isinstance(value, float):
            assert other[0][key] == pytest.approx(value, abs=1e-6)
    assert one[1].keys() == other[1].keys()
    for key, value in one[1].items():
        np.testing.assert_allclose(other[1][key], value, rtol=1e-4, atol=1e-6)


def test_the_heads_that_are_sums_over_rows():
    assert SHARED == ["mean", "ridge", "kernel"]


@pytest.mark.parametrize("name", SHARED)
def test_shared_passes_give_the_same_numbers(name, cache, tmp_path, small_parts):
    others = Pickling()
    with workers.shared_by(others):
        assert workers.are_there()
        shared = fitted(cache, name, tmp_path / "shared")
    assert not workers.are_there()
    assert max(others.counts) == 5  # parts of 240 rows, in the fit of the saved head
    assert_same(fitted(cache, name, tmp_path / "alone"), shared)


def test_nothing_is_shared_that_is_held_in_memory():
    others = Pickling()
    with workers.shared_by(others):
        row_blocks.mean_of_rows(np.ones((100, 3)))
    assert not others.counts


def test_parts_do_not_depend_on_workers_and_are_bounded(monkeypatch):
    class Many:
        """Rows that nobody reads."""

        def __len__(self) -> int:
            return 10_000_000

    others = Pickling()
    with workers.shared_by(others):
        parts = [*row_blocks.over_rows(lambda part: part, [Many()])]
    assert len(parts) <= row_blocks.MOST_PARTS
    assert all(part.start % row_blocks.BLOCK == 0 for part in parts)
    assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert (parts[0].start, parts[-1].stop) == (0, 10_000_000)


def test_a_mapped_column_is_pickled_without_its_values(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache"))
    column = cache.mapped(cache.manifest.of_kind("features")[0])
    rows = np.array([3, 1, 40])
    column[rows]
    sent = pickle.dumps(column)
    assert len(sent) < 8_000
    np.testing.assert_array_equal(pickle.loads(sent)[rows], column[rows])


def test_mapped_views_are_pickled_as_views(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache"))
    # Any column with two axes serves as one of views here: it is not read.
    column = cache.manifest.of_kind("targets")[0]
    views = MappedViews(cache.folder, column)
    again = pickle.loads(pickle.dumps(views))
    assert isinstance(again, MappedViews)
    assert (again.shape, again.stored, again.folder) == (views.shape, column, cache.folder.absolute())


@pytest.mark.parametrize(
    ("head", "parameters", "parameter", "message"),
    [
        ("knn", {"engine": "ray"}, "engine", "fits heads that are sums over rows: mean, ridge, kernel; knn"),
        ("best", {"engine": "ray"}, "engine", "best is fitted on one machine"),
        ("ridge", {"engine": "spark"}, "engine", "`engine`"),
        ("ridge", {"workers": 2}, "workers", 'add `engine="ray"`'),
        ("ridge", {"workers": 0, "engine": "ray"}, "workers", "at least 1"),
        ("ridge", {"ray_address": "auto"}, "ray_address", 'add `engine="ray"`'),
        ("kernel", {"engine": "ray", "extra": "other"}, "extra", "must be held in memory"),
        ("ridge", {"engine": "ray", "soften": "train"}, "soften", "must be held in memory"),
    ],
)
def test_what_an_engine_cannot_do_is_said_at_once(head, parameters, parameter, message, cache):
    with pytest.raises(UsageError, match=message) as caught:
        ipc.fit(cache, head, **parameters)
    assert caught.value.parameter == parameter
