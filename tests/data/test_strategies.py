from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from img2prompt_cache.cache.manifest_file import load_manifest, save_manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.cache.texts import Texts
from img2prompt_cache.data.columns import choose_features
from img2prompt_cache.data.dataset import load_dataset
from img2prompt_cache.data.groups import prompt_groups
from img2prompt_cache.data.splits import PURGED
from img2prompt_cache.data.strategies import FEW_LABELS, column_split, make_split
from img2prompt_cache.errors import UsageError
from img2prompt_cache.numerics.metrics import unit
from synthetic import make_cache, make_column

group_lists = st.lists(st.integers(0, 12), min_size=2, max_size=80).map(np.array)
seeds = st.integers(0, 1000)


def test_a_column_that_names_sides_is_the_split():
    groups = np.array([0, 0, 1, 2])
    split = column_split(["train", "Training", " TEST ", "val"], groups, "part")
    assert (split.train.tolist(), split.validation.tolist()) == ([0, 1], [2, 3])
    assert split.strategy == "part"
    assert split.groups is groups


def test_other_columns_are_labels_of_groups():
    values = ["cats", "dogs", "cats", "cows", "owls"] * 4
    split = column_split(values, np.arange(20), "theme", 0.3, seed=1)
    held = {values[row] for row in split.validation}
    assert held
    assert not held & {values[row] for row in split.train}
    assert split.straddling == 0


@given(group_lists, st.lists(st.sampled_from("abcdefgh"), min_size=40, max_size=40), seeds)
def test_neither_labels_nor_groups_straddle_a_split_by_labels(groups, labels, seed):
    labels = labels[: len(groups)]
    assume(len(labels) == len(groups))
    try:
        split = column_split(labels, groups, "theme", 0.3, seed)
    except UsageError:
        return
    labels = np.array(labels)
    for kind in (groups, labels):
        assert not {*kind[split.train]} & {*kind[split.validation]}
        # Inner folds keep both whole, too, unless that leaves few to divide.
        if split.groups is not groups:
            pairs = {*zip(kind.tolist(), split.groups.tolist(), strict=True)}
            assert len(pairs) == len({*kind.tolist()})
    assert split.groups is groups or len({*labels[split.train].tolist()}) >= FEW_LABELS


def test_labels_that_share_groups_are_one():
    groups = np.array([0, 1, 1, 2, 3])
    split = column_split(["cats", "cats", "dogs", "dogs", "owls"], groups, "theme", 0.3)
    assert sorted(np.flatnonzero(side).tolist() for side in (split.fold < 0, split.fold == 0)) == [
        [0, 1, 2, 3],
        [4],
    ]
    assert split.groups is groups  # so that inner folds can be drawn of one label
    with pytest.raises(UsageError, match=r"all 3 are one group of equal labels or near-identical"):
        column_split(["cats", "cats", "dogs"], np.array([0, 1, 1]), "theme")


def test_inner_folds_keep_labels_whole_where_there_are_enough():
    values = [f"artist {n % 10}" for n in range(40)]
    many = column_split(values, np.arange(40), "artist", 0.2)
    assert len(np.unique(many.groups)) == 10
    two = column_split(["a", "b"] * 20, np.arange(40), "set", 0.5)
    assert len(np.unique(two.inner_groups(two.train))) == 20


def test_a_test_set_is_held_out_and_what_is_near_to_it_is_purged(tmp_path):
    # Rows 0, 20 and 40 are near-identical, and so on: 20 groups of three.
    sets = ["ours"] * 40 + ["theirs"] * 20
    cache = Cache(make_cache(tmp_path / "cache", fold=sets, further=[row % 2 for row in range(60)]))
    data = load_dataset(cache, choose_features(cache, ()), cache.manifest.of_kind("targets")[0])
    with pytest.raises(UsageError, match=r"every other row is near-identical to one with fold=theirs"):
        make_split(cache, data, "fold=theirs", 0.2, 0)
    cache = Cache(
        make_cache(tmp_path / "other", fold=["theirs" if row in (3, 44) else "ours" for row in range(60)])
    )
    data = load_dataset(cache, choose_features(cache, ()), cache.manifest.of_kind("targets")[0])
    split = make_split(cache, data, " fold = theirs", 0.2, 7)
    assert (split.strategy, split.folds, split.seed, split.test_set) == ("fold=theirs", 1, 7, True)
    assert split.validation.tolist() == [3, 44]
    assert split.purged.tolist() == [4, 23, 24, 43]
    assert (len(split.train), split.straddling) == (54, 0)
    ((train, held),) = split.sides
    assert (train.tolist(), held.tolist()) == (split.train.tolist(), [3, 44])
    assert len(np.unique(split.inner_groups(split.train))) == 18
    assert (split.fold == PURGED).sum() == 4


def test_images_of_a_test_set_are_purged_too(tmp_path):
    cache = Cache(make_cache(tmp_path / "cache", groups=60, fold=["a"] * 30 + ["b"] * 30))
    data = load_dataset(cache, choose_features(cache, ()), cache.manifest.of_kind("targets")[0])
    assert make_split(cache, data, "fold=b", 0.2, 0).purged.tolist() == []
    images = [*data.images]
    images[7] = images[33]
    data = replace(data, images=Texts.of(images))
    assert make_split(cache, data, "fold=b", 0.2, 0).purged.tolist() == [7]


@pytest.mark.parametrize(
    ("test", "folds", "words"),
    [
        ("fold=c", None, r"no usable row has fold=c; there are 'a', 'b'"),
        ("fold=a", None, r"all 60 usable rows|every other row"),
        ("flod=a", None, r"unknown column 'flod' of `test`; did you mean fold"),
        ("fold=a", 3, r"a test set is one hold-out"),
    ],
)
def test_test_sets_that_are_none_are_refused(tmp_path, test, folds, words):
    sets = ["a"] * 60 if words.startswith("all") else ["a"] * 59 + ["b"]
    cache = Cache(make_cache(tmp_path / "cache", fold=sets))
    data = load_dataset(cache, choose_features(cache, ()), cache.manifest.of_kind("targets")[0])
    with pytest.raises(UsageError, match=words):
        make_split(cache, data, test, 0.2, 0, folds)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["train", "train"], "no rows for validation"),
        (["val", "test"], "no rows for training"),
        (["train", " "], "empty in 1 row, first in row 1"),
        (["a", "a"], "holds only 'a'; a split takes two labels"),
        (
            ["train", "unused"],
            r"names sides of a split \('train'\) and holds other values besides \('unused'\)",
        ),
    ],
)
def test_columns_that_cannot_split_are_refused(values, words):
    with pytest.raises(UsageError, match=words):
        column_split(values, np.arange(2), "part")


def test_a_value_that_is_no_side_does_not_turn_sides_into_labels():
    values = ["train"] * 80 + ["val"] * 20 + ["test"] * 10 + ["unused"] * 10
    with pytest.raises(
        UsageError, match=r"'test', 'train', 'val'\) .* \('unused'\).*leave out .* `only`"
    ) as caught:
        column_split(values, np.arange(120), "part")
    assert caught.value.parameter == "split"


def test_rows_are_grouped_by_the_first_sentence_encoder_whatever_is_predicted(tmp_path):
    folder = make_cache(tmp_path / "cache")
    manifest = load_manifest(folder)
    # To the tower all prompts are near: a threshold for sentence encoders makes one group of them.
    first = manifest.of_kind("targets")[0]
    tower = unit(np.random.default_rng(0).normal(size=(60, 8)) * 0.1 + 1)
    column = make_column(folder, "targets", "open_clip:tower", tower, 60, 16)
    save_manifest(folder, replace(manifest, columns=(manifest.columns[0], column, *manifest.columns[1:])))
    cache = Cache(folder)
    features = choose_features(cache, ())
    splits = [
        make_split(cache, load_dataset(cache, features, cache.column("targets", spec)), "group", 0.2, 0)
        for spec in (first.spec, column.spec)
    ]
    assert len(np.unique(prompt_groups(tower, [str(row) for row in range(60)]))) == 1
    assert len(np.unique(splits[0].groups)) == 20
    assert np.array_equal(splits[0].groups, splits[1].groups)
    assert np.array_equal(splits[0].fold, splits[1].fold)
