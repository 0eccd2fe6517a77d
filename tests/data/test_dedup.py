from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data import dedup
from img2prompt_cache.data.dedup import count_duplicates, find_duplicates, keep_first, save_duplicates
from img2prompt_cache.data.selection import read_selection
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics import similarity_graph
from img2prompt_cache.numerics.metrics import unit
from synthetic import ONE, make_cache

MISSING, FAILED = (7, 41), (8, 20)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dedup") / "cache"
    return Cache(make_cache(folder, without_prompt=MISSING, failed=FAILED))


def find(cache, threshold=0.9):
    return find_duplicates(
        cache, threshold, cache.column("features", ONE), cache.manifest.of_kind("targets")[0]
    )


def walk(near):
    """Components of a dense graph, each named by its first row: the oracle."""
    reach = near.copy()
    for middle in range(len(near)):
        reach |= reach[:, middle, None] & reach[None, middle]
    return reach.argmax(axis=1)


def same(group, wanted):
    return np.array_equal(group[:, None] == group, wanted[:, None] == wanted)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("block", [1024, 7])
def test_groups_are_those_of_the_dense_graph(cache, monkeypatch, threshold, block):
    monkeypatch.setattr(similarity_graph, "BLOCK", block)
    found = find(cache, threshold)
    good = np.array([row for row in range(60) if row not in FAILED])
    X = cache.values(cache.column("features", ONE))[good]
    Z = unit((X - X.mean(axis=0)) / X.std(axis=0))
    assert same(found.image_group[good], walk(threshold - 1e-5 <= (Z @ Z.T)))
    prompted = np.array([row for row in good if row not in MISSING])
    y = cache.values(cache.manifest.of_kind("targets")[0])[prompted]
    assert same(found.prompt_group[prompted], walk(y @ y.T >= threshold - 1e-5))
    assert (found.image_group[list(FAILED)] == -1).all()
    assert (found.prompt_group[[*FAILED, *MISSING]] == -1).all()
    assert not found.keep[list(FAILED)].any()
    if threshold < 1:
        assert len(np.unique(found.prompt_group[prompted])) < len(prompted) / 2
    else:
        assert found.keep.sum() == len(good)


groups = st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), max_size=40)


@given(groups)
def test_what_is_kept_shares_nothing_and_what_is_not_shares_something_with_it(pairs):
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    keep = keep_first(one, other)

    def alike(a, b):
        return (one[a] == one[b] != -1) or (other[a] == other[b] != -1)

    for row in range(len(pairs)):
        assert keep[row] != any(keep[before] and alike(row, before) for before in range(row))


@given(groups, st.lists(st.booleans(), min_size=40, max_size=40))
def test_rows_with_a_prompt_come_first(pairs, prompted):
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    prompted = np.array(prompted[: len(pairs)], bool)
    keep = keep_first(one, other, prompted)
    order = np.argsort(~prompted, kind="stable")
    assert np.array_equal(keep[order], keep_first(one[order], other[order]))


def test_a_row_without_a_prompt_does_not_take_the_place_of_one_with_a_prompt(tmp_path, monkeypatch):
    cache = Cache(make_cache(tmp_path / "cache", groups=60, without_prompt=(2,)))
    text = cache.text("imgId", "prompt", "sha256", "status")
    text["sha256"][50] = text["sha256"][2]
    monkeypatch.setattr(Cache, "text", lambda self, *names: text)
    found = find(cache)
    assert (found.keep[2], found.keep[50]) == (False, True)


@given(st.lists(st.integers(-1, 5), max_size=30))
def test_twins_have_one_before_them(group):
    wanted = sum(name != -1 and name in group[:row] for row, name in enumerate(group))
    assert count_duplicates(np.array(group, np.int64)) == wanted


def test_identical_bytes_are_one_image_whatever_the_features(tmp_path, monkeypatch):
    cache = Cache(make_cache(tmp_path / "cache", groups=60))
    text = cache.text("imgId", "prompt", "sha256", "status")
    text["sha256"][50] = text["sha256"][2]
    monkeypatch.setattr(Cache, "text", lambda self, *names: text)
    found = find(cache)
    assert found.image_group[50] == found.image_group[2]
    assert found.identical == 1
    assert (found.keep[2], found.keep[50]) == (True, False)


def test_the_scale_of_many_rows_is_told_by_some(cache, monkeypatch):
    whole = find(cache)
    monkeypatch.setattr(dedup, "SAMPLE", 20)
    assert same(find(cache).image_group, whole.image_group)


def test_features_that_tell_nothing_make_nothing_alike(tmp_path, monkeypatch):
    cache = Cache(make_cache(tmp_path / "cache", groups=60))
    mapped = type(cache.mapped(cache.column("features", ONE)))
    original = mapped.__getitem__

    def constant(self, rows):
        values = original(self, rows)
        return np.ones_like(values) if self.column.spec == ONE else values

    monkeypatch.setattr(mapped, "__getitem__", constant)
    assert find(cache).keep.all()


def test_the_file_is_read_back_as_a_selection(cache, tmp_path):
    found, path = find(cache), tmp_path / "x.csv"
    save_duplicates(path, found)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["imgId", "keep", "prompt_group", "image_group"]
    assert [row["imgId"] for row in rows] == found.ids
    assert [row["prompt_group"] for row in rows] == ["" if g < 0 else str(g) for g in found.prompt_group]
    assert read_selection(path) == [name for name, kept in zip(found.ids, found.keep, strict=True) if kept]
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"`out=.*x\.csv\"` exists; give `overwrite=True`"):
        save_duplicates(path, found)
    save_duplicates(path, found, overwrite=True)
    assert path.read_bytes() == before
    with pytest.raises(Img2PromptError, match="cannot be written: No such file"):
        save_duplicates(tmp_path / "no" / "x.csv", found)
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_thresholds_out_of_range(cache, threshold):
    with pytest.raises(UsageError, match="`threshold` must be above 0 and at most 1"):
        find(cache, threshold)


def test_bad_caches(tmp_path):
    with pytest.raises(Img2PromptError, match="holds NaN or infinity in usable rows"):
        find(Cache(make_cache(tmp_path / "nan", nan=[5])))
    with pytest.raises(UsageError, match="has no usable image"):
        find(Cache(make_cache(tmp_path / "failed", 20, failed=range(20))))


def test_a_cache_without_targets_has_no_prompt_groups(cache):
    found = find_duplicates(cache, 0.9, cache.column("features", ONE), None)
    assert (found.prompt_group == -1).all()
    assert 0 < found.keep.sum() < 58


def test_many_rows_are_compared_by_cells_and_the_recall_is_told(cache, monkeypatch):
    exact = find(cache)
    assert exact.recall == {}
    monkeypatch.setattr(dedup, "EXACT", 30)
    found = find(cache)
    assert set(found.recall) == {"prompts", "images"}
    assert all(0.9 <= share <= 1 for share in found.recall.values())
    assert same(found.prompt_group, exact.prompt_group)
    monkeypatch.setattr(dedup, "EXACT", 56)
    assert set(find(cache).recall) == {"images"}  # 56 prompts have an image


def test_vectors_below_others_are_numbered_after_them():
    above, below = np.eye(3, dtype=np.float32), np.full((2, 3), 0.5, np.float32)
    joined, whole = dedup._Joined(above, below), np.concatenate([above, below])
    for part in (slice(None), slice(1, 4), slice(3, 9), slice(None, None, 2), np.array([4, 0, 4, 2])):
        np.testing.assert_array_equal(joined[part], whole[part])
    assert len(joined) == 5
