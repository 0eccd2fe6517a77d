from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data import clustered as module
from img2prompt_cache.data.clustered import cluster_groups, divide, hold_out_clusters, must_cluster
from img2prompt_cache.data.columns import choose_features
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.further_prompts import all_vectors
from img2prompt_cache.data.prompt_vectors import PromptVectors
from img2prompt_cache.data.purging import check_split, purge, with_purges
from img2prompt_cache.data.splits import PURGED, Split
from img2prompt_cache.data.strategies import make_split
from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.numerics import clusters
from img2prompt_cache.numerics.metrics import unit
from synthetic import make_cache

THRESHOLD = 0.8


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let small sets be clustered, by clusters of some rows."""
    monkeypatch.setattr(module, "MOST_COMPONENTS", 30)
    monkeypatch.setattr(module, "ALWAYS_COMPONENTS", 20)
    monkeypatch.setattr(clusters, "PER_CLUSTER", 5)


def drifting(n: int, seed: int) -> np.ndarray:
    """Vectors along a path, so that all are one connected component."""
    rng = np.random.default_rng(seed)
    path = rng.normal(size=8)
    steps = [path := 0.9 * path + 0.4 * rng.normal(size=8) for _ in range(n)]
    return unit(np.array(steps))


def loaded(folder, **options):
    cache = Cache(make_cache(folder, **options))
    return cache, load_dataset(cache, choose_features(cache, ()), cache.manifest.of_kind("targets")[0])


def near_pairs(vectors: np.ndarray, one: np.ndarray, other: np.ndarray) -> int:
    """The oracle: pairs across two sets of rows, in float64."""
    exact = unit(vectors).astype(np.float64)
    return int((exact[one] @ exact[other].T >= THRESHOLD).sum())


@given(
    st.integers(40, 120),
    st.integers(0, 1000),
    st.one_of(st.none(), st.integers(2, 4)),
    st.integers(8, 60),
)
@settings(max_examples=60, deadline=None)
def test_no_near_identical_pair_is_on_both_sides_of_any_fold(n, seed, folds, most):
    rng = np.random.default_rng(seed)
    earlier = rng.integers(np.arange(n) + 1)  # some rows repeat the prompt or the image of an earlier one
    prompts, images = (np.where(rng.random(n) < 0.1, earlier, np.arange(n)).tolist() for _ in range(2))
    vectors = drifting(n, seed)[prompts]
    rows = PromptVectors(vectors)
    groups = cluster_groups(rows, prompts, images)
    before, module.MOST_HELD = module.MOST_HELD, most
    try:
        split = hold_out_clusters(groups, 0.3, folds, seed, "group")
        split = purge(split, rows, None, images, THRESHOLD)
    except UsageError:  # nothing would be left to train on
        reject()
    finally:
        module.MOST_HELD = before
    held_out = np.zeros(n, int)
    for train, held in split.sides:
        assert len(train)
        assert len(held) > 0
        held_out[held] += 1
        assert near_pairs(vectors, train, held) == 0
        for values in (np.array(prompts), np.array(images), split.groups):
            assert not {*values[train].tolist()} & {*values[held].tolist()}
    assert held_out.max() == 1
    assert np.array_equal(np.flatnonzero(held_out), split.validation)
    assert split.straddling == 0
    check = check_split(split, rows, None, THRESHOLD)
    assert (check.rows, check.found) == (len(split.validation), 0)
    assert check.pairs == sum(len(train) * len(held) for train, held in split.sides)


def test_the_most_that_is_held_out_is_a_limit_in_every_fold(monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD", 12)
    groups = np.repeat(np.arange(40), 5)
    assert len(hold_out_clusters(groups, 0.2, None, 0, "group").validation) == 10
    assert len(hold_out_clusters(groups, 0.03, None, 0, "group").validation) == 5
    split = hold_out_clusters(groups, 0.2, 3, 0, "group")
    assert np.bincount(split.fold + 1).tolist() == [165, 15, 10, 10]
    assert split.train.tolist() == np.flatnonzero(split.fold == -1).tolist()
    monkeypatch.setattr(module, "MOST_HELD", 100)
    assert len(hold_out_clusters(groups, 0.2, 3, 0, "group").train) == 0  # there is room for every row
    other = hold_out_clusters(groups, 0.2, None, 1, "group")
    assert other.validation.tolist() != hold_out_clusters(groups, 0.2, None, 0, "group").validation.tolist()
    with pytest.raises(UsageError, match="`holdout` must lie between 0 and 1"):
        hold_out_clusters(groups, 1.5, None, 0, "group")
    with pytest.raises(UsageError, match="one group of near-identical"):
        hold_out_clusters(np.zeros(9, np.int64), 0.2, None, 0, "group")


def test_small_sets_are_divided_by_components_and_large_ones_by_clusters():
    assert not must_cluster(np.zeros(20, np.int64))  # however large a component is
    assert must_cluster(np.zeros(21, np.int64))
    assert not must_cluster(np.arange(30))
    assert must_cluster(np.arange(31))
    vectors, names = drifting(25, 0), [str(row) for row in range(25)]
    groups, clustered = divide(PromptVectors(vectors), None, names, names, 0.3)
    assert clustered
    assert len(np.unique(groups)) > 1
    apart = unit(np.random.default_rng(0).normal(size=(25, 200)))
    groups, clustered = divide(PromptVectors(apart), None, names, names, THRESHOLD)
    assert (groups.tolist(), clustered) == (list(range(25)), False)
    assert divide(PromptVectors(vectors), None, names, names, 0.3, clustered=False)[0].tolist() == [0] * 25


@pytest.mark.parametrize("folds", [None, 3])
def test_further_prompts_and_images_of_a_held_out_row_are_purged_too(tmp_path, folds):
    cache, data = loaded(tmp_path / "cache", rows=120, groups=60, further=[row % 3 for row in range(120)])
    assert data.further is not None
    data.further.vectors[5] = data.y[60]
    split = make_split(cache, data, "group", 0.2, 0, folds)
    assert (split.clustered, split.purging, split.strategy) == (True, True, "group")
    for train, held in split.sides:
        every = [all_vectors(np.asarray(data.y[side]), data.further.select(side)) for side in (train, held)]
        assert (every[0].astype(np.float64) @ every[1].T >= THRESHOLD + 1e-6).sum() == 0
    again = make_split(cache, data, "group", 0.2, 0, folds)
    assert np.array_equal(split.fold, again.fold)
    assert all(np.array_equal(*pair) for pair in zip(split.purges, again.purges, strict=True))


def test_a_check_finds_what_was_not_purged(tmp_path):
    cache, data = loaded(tmp_path / "cache", rows=120, groups=30)
    rows = PromptVectors(data.y)
    split = make_split(cache, data, "random", 0.2, 0)
    assert (split.clustered, split.purging) == (True, False)
    check = check_split(split, rows, None, THRESHOLD)
    assert check.found == near_pairs(np.asarray(data.y), split.train, split.validation) > 0


def test_labels_are_held_out_whole_and_purged(tmp_path):
    sets = [f"set {row // 12}" for row in range(120)]
    cache, data = loaded(tmp_path / "cache", rows=120, groups=50, fold=sets)
    split = make_split(cache, data, "fold", 0.2, 0)
    labels = np.array(sets)
    assert not {*labels[split.validation]} & {*labels[split.train]}
    assert near_pairs(np.asarray(data.y), split.train, split.validation) == 0
    assert len(split.purged)
    assert len(np.unique(split.groups)) == 10


def test_sides_that_the_user_names_are_kept_and_groups_straddle_only_where_rows_are_near(tmp_path):
    sides = ["val" if row % 20 < 3 else "train" for row in range(120)]
    cache, data = loaded(tmp_path / "cache", rows=120, groups=120, fold=sides)
    split = make_split(cache, data, "fold", 0.2, 0)
    assert (split.straddling, len(split.purged)) == (0, 0)
    cache, data = loaded(tmp_path / "near", rows=120, groups=119, fold=sides)  # the last is near to the first
    split = make_split(cache, data, "fold", 0.2, 0)
    assert near_pairs(np.asarray(data.y), split.train, split.validation) == 1
    assert (split.straddling, len(split.purged)) == (1, 0)


def test_a_test_set_is_purged_and_the_rest_clustered(tmp_path):
    sets = ["theirs" if row < 10 else "ours" for row in range(120)]
    cache, data = loaded(tmp_path / "cache", rows=120, groups=60, fold=sets)
    split = make_split(cache, data, "fold=theirs", 0.2, 0)
    assert split.clustered
    assert split.validation.tolist() == list(range(10))
    assert split.purged.tolist() == list(range(60, 70))
    assert near_pairs(np.asarray(data.y), split.train, split.validation) == 0


def test_what_a_fold_leaves_out_is_in_the_digest_and_no_digest_of_other_splits_changes():
    names = [f"i{row}" for row in range(6)]
    split = Split("group", 0, np.array([0, 0, 1, 1, -1, -1]), np.arange(6))
    arguments = (names, names, names)
    purged = with_purges(split, [np.array([4]), np.array([5])])
    assert purged.purged.tolist() == [4, 5]
    assert [train.tolist() for train, _ in purged.sides] == [[2, 3, 5], [0, 1, 4]]
    other = with_purges(split, [np.array([5]), np.array([5])])
    assert len({each.digest(*arguments) for each in (split, purged, other)}) == 3
    turned = with_purges(replace(split, fold=np.array([1, 1, 0, 0, -1, -1])), [np.array([5]), np.array([4])])
    assert turned.digest(*arguments) == purged.digest(*arguments)
    assert turned.contents_digest(*arguments, {}) == purged.contents_digest(*arguments, {})
    alone = with_purges(replace(split, fold=np.array([0, 0, -1, -1, -1, -1])), [np.array([3])])
    assert alone.fold.tolist() == [0, 0, -1, PURGED, -1, -1]
    with pytest.raises(UsageError, match="every other row is near-identical"):
        with_purges(alone, [np.array([2, 3, 4, 5])])


def test_embeddings_that_are_not_finite_are_refused():
    values = drifting(4, 0)
    values[2, 1] = np.inf
    with pytest.raises(Img2PromptError, match="NaN or infinity"):
        PromptVectors(values)[1:3]
    assert PromptVectors(values).select(np.array([3, 0]))[:].shape == (2, 8)
