from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from img2prompt_cache.cache.texts import BLOCK
from img2prompt_cache.data.splits import Split, hold_out, k_fold_split, k_folds, random_split, rows_digest
from img2prompt_cache.data.strategies import column_split
from img2prompt_cache.errors import UsageError

group_lists = st.lists(st.integers(0, 12), min_size=2, max_size=80).map(np.array)
seeds = st.integers(0, 1000)


@given(group_lists, st.floats(0.01, 0.99), seeds)
def test_hold_out_divides_rows_by_whole_groups_near_the_fraction(groups, fraction, seed):
    assume(len(np.unique(groups)) > 1)
    split = hold_out(groups, fraction, seed)
    both = np.concatenate([split.train, split.validation])
    assert np.array_equal(np.sort(both), np.arange(len(groups)))
    assert len(split.train)
    assert len(split.validation)
    assert not set(groups[split.train]) & set(groups[split.validation])
    again = hold_out(groups, fraction, seed)
    assert np.array_equal(again.validation, split.validation)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9, 0.99])
def test_single_rows_are_held_out_in_the_fraction_asked_for(fraction):
    assert len(hold_out(np.arange(1000), fraction).validation) == pytest.approx(1000 * fraction, abs=1)


def test_a_group_is_held_out_as_often_whatever_its_size():
    # Sizes like those of a set of style previews: a few groups of hundreds of rows, and many single ones.
    size = np.array([220, 150, 130] + [40] * 5 + [1] * 300)
    groups = np.repeat(np.arange(len(size)), size)
    draws = [hold_out(groups, 0.2, seed) for seed in range(300)]
    shares = np.array([len(split.validation) / len(groups) for split in draws])
    assert 0.15 < shares.min() <= shares.max() < 0.25
    often = np.mean([np.isin(np.arange(len(size)), groups[split.validation]) for split in draws], axis=0)
    for kind in (size == 220, size == 150, size == 130, size == 40, size == 1):
        assert often[kind].mean() == pytest.approx(0.2, abs=0.07)


def test_beside_one_group_of_most_rows_there_is_more_than_one_group_to_train_on():
    groups = np.concatenate([np.zeros(900, int), np.arange(1, 101)])
    for seed in range(20):
        split = hold_out(groups, 0.2, seed)
        assert len(np.unique(groups[split.train])) >= 75
        assert len(split.validation) in (25, 900)


@given(group_lists, seeds, st.permutations(range(13)))
def test_divisions_do_not_depend_on_how_groups_are_numbered(groups, seed, names):
    assume(len(np.unique(groups)) > 1)
    renamed = np.array(names)[groups]
    assert np.array_equal(hold_out(groups, 0.3, seed).validation, hold_out(renamed, 0.3, seed).validation)
    assert np.array_equal(k_folds(groups, 2, seed), k_folds(renamed, 2, seed))


def test_seeds_differ():
    groups = np.arange(100) // 2
    assert not np.array_equal(hold_out(groups, seed=0).validation, hold_out(groups, seed=1).validation)
    assert not np.array_equal(k_folds(groups, 5, 0), k_folds(groups, 5, 1))


def test_where_every_group_is_too_large_one_is_held_out():
    groups = np.repeat([0, 1, 2], [50, 30, 40])
    held = {tuple(np.unique(groups[hold_out(groups, 0.1, seed).validation])) for seed in range(20)}
    assert held == {(0,), (1,), (2,)}


def test_one_group_cannot_be_held_out():
    with pytest.raises(UsageError, match=r'all 3 are one group of near-.* `split="random"`'):
        hold_out(np.zeros(3, int))
    for split in (lambda: random_split(1), lambda: hold_out(np.zeros(1, int))):
        with pytest.raises(UsageError, match=r"^cannot hold out rows of 1; add pairs$"):
            split()


@pytest.mark.parametrize("fraction", [0, 1, -0.2, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(UsageError, match="between 0 and 1"):
        hold_out(np.arange(4), fraction)


@given(group_lists, st.integers(2, 6), seeds)
def test_folds_are_whole_groups_balanced_in_rows(groups, k, seed):
    assume(len(np.unique(groups)) >= k)
    fold = k_folds(groups, k, seed)
    assert set(fold) == set(range(k))
    for group in set(groups):
        assert len(set(fold[groups == group])) == 1
    rows = np.bincount(fold)
    # Largest first keeps the spread within the largest group.
    assert rows.max() - rows.min() <= np.bincount(groups).max()
    assert np.array_equal(fold, k_folds(groups, k, seed))


def test_single_rows_fill_folds_evenly():
    assert np.bincount(k_folds(np.arange(103), 5, 0)).tolist() == [21, 21, 21, 20, 20]


def test_fewer_groups_than_folds_names_both_numbers():
    with pytest.raises(
        UsageError,
        match=r"^3 groups of near-identical .* cannot fill 5 folds; .* fewer folds \(`folds`, `inner",
    ):
        k_folds(np.array([0, 0, 1, 2]), 5)
    with pytest.raises(UsageError, match=r"^1 group of near-.* cannot fill 5 folds; .*, such as `alpha`$"):
        k_folds(np.zeros(4, int), 5)
    with pytest.raises(
        UsageError,
        match=r"^4 rows cannot fill 5 folds; add pairs, or .* fewer folds \(`folds`, `inner_folds`\)$",
    ):
        k_folds(np.arange(4), 5)
    with pytest.raises(UsageError, match="at least 2"):
        k_folds(np.arange(9), 1)


def test_random_split_ignores_groups():
    split = random_split(50, 0.2, seed=3)
    assert split.strategy == "random"
    assert len(split.validation) == 10


def test_groups_on_both_sides_are_counted():
    groups = np.array([0, 0, 1, 1, 2, 3, 3])
    sides = ["train", "val", "val", "train", "train", "val", "val"]
    assert column_split(sides, groups, "part").straddling == 2
    assert hold_out(groups).straddling == 0


def test_digest_names_the_rows_in_any_order():
    ids = [f"img{row}" for row in range(20)]
    prompts, images = [f"prompt {row}" for row in range(20)], [f"{row:064x}" for row in range(20)]
    rows = (ids, prompts, images)
    groups = np.arange(20)
    digest = hold_out(groups, seed=0).digest(*rows)
    assert len(digest) == 64
    assert hold_out(groups, seed=1).digest(*rows) != digest
    assert random_split(20, seed=0).digest(*rows) != digest
    values = np.full(20, "train")
    values[[3, 7]] = "val"
    split, turned = (column_split(list(v), groups, "part") for v in (values, values[::-1]))
    assert split.digest(*rows) == turned.digest(*(column[::-1] for column in rows))


def test_digest_tells_data_sets_apart_whose_ids_are_the_same():
    ids, prompts, images = ["0001", "0002", "0003"], ["a", "b", "c"], ["x", "y", "z"]
    split = column_split(["train", "train", "val"], np.arange(3), "part")
    digest = split.digest(ids, prompts, images)
    assert split.digest(ids, ["a", "b", "other"], images) != digest
    assert split.digest(ids, prompts, ["x", "y", "other"]) != digest
    assert split.digest(["0001", "0004", "0003"], prompts, images) != digest


@given(group_lists, st.integers(2, 6), seeds)
def test_folds_hold_out_every_row_once(groups, folds, seed):
    assume(len(np.unique(groups)) >= folds)
    split = k_fold_split(groups, folds, seed)
    sides = list(split.sides)
    assert len(sides) == split.folds == folds
    assert np.array_equal(np.sort(np.concatenate([held for _, held in sides])), np.arange(len(groups)))
    for train, held in sides:
        assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(len(groups)))
        assert not {*groups[train]} & {*groups[held]}
    assert (len(split.train), len(split.validation), split.straddling) == (0, len(groups), 0)


@given(group_lists, st.lists(st.integers(-1, 3), min_size=80, max_size=80), seeds)
def test_straddling_counts_the_groups_in_several_places(groups, fold, seed):
    fold = np.array(fold[: len(groups)])
    split = Split("mine", seed, fold, groups)
    assert split.straddling == sum(len({*fold[groups == group]}) > 1 for group in {*groups})


def test_a_hold_out_is_one_fold():
    split = hold_out(np.arange(10) // 2, 0.4)
    ((train, held),) = split.sides
    assert (train.tolist(), held.tolist()) == (split.train.tolist(), split.validation.tolist())
    assert split.folds == 1


def test_digest_of_folds_tells_who_was_where_but_not_in_which_order():
    rows = [[f"{letter}{row}" for row in range(12)] for letter in "ips"]
    groups = np.arange(12) // 2
    split = k_fold_split(groups, 3)
    digest = split.digest(*rows)
    renamed = Split("group", 0, (split.fold + 1) % 3, groups)
    assert renamed.digest(*rows) == digest
    turned = Split("group", 0, split.fold[::-1], groups[::-1])
    assert turned.digest(*(column[::-1] for column in rows)) == digest
    others = [
        k_fold_split(groups, 2),
        k_fold_split(groups, 3, seed=1),
        hold_out(groups),
        random_split(12, folds=3),
    ]
    assert digest not in {other.digest(*rows) for other in others}


def test_digest_of_rows_is_of_what_they_are():
    rows = [[f"{letter}{row}" for row in range(6)] for letter in "ips"]
    digest = rows_digest(np.array([1, 3]), *rows)
    assert rows_digest(np.array([3, 1]), *rows) == digest != rows_digest(np.array([1, 2]), *rows)
    for column in range(3):
        changed = [[*values] for values in rows]
        changed[column][3] = "other"
        assert rows_digest(np.array([1, 3]), *changed) != digest


def test_digest_of_contents_is_of_all_rows_and_the_target():
    rows = [[f"{letter}{row}" for row in range(12)] for letter in "ips"]
    target = {"weights": "sha256:1"}
    for split in (hold_out(np.arange(12) // 2), k_fold_split(np.arange(12) // 2, 3)):
        digest = split.contents_digest(*rows, target)
        assert split.contents_digest(*rows, {"weights": "sha256:2"}) != digest
        for column in range(3):
            for row in range(12):
                changed = [[*values] for values in rows]
                changed[column][row] = "other"
                assert split.contents_digest(*changed, target) != digest
        turned = Split("group", 0, split.fold[::-1], split.groups[::-1])
        assert turned.contents_digest(*(column[::-1] for column in rows), target) == digest


def test_digests_are_those_of_the_json_that_earlier_versions_hashed_as_a_whole():
    turn = np.random.default_rng(0).permutation(2 * BLOCK + 7)
    rows = [(f"ü{row:05d}", f'a "{row % 7}" \U0001f600', f"{row % 11:064x}") for row in turn.tolist()]
    columns = [*map(list, zip(*rows, strict=True))]
    target = {"weights": "sha256:1"}
    whole = k_fold_split(turn // 3, 3, seed=1)
    fold = np.where(turn % 5 == 0, -1, whole.fold)
    purges = tuple(np.flatnonzero((fold != number) & (turn % 4 == number)) for number in range(3))
    splits = [hold_out(turn // 3, seed=1), whole, replace(whole, fold=fold, purging=True, purges=purges)]
    for split in splits:
        pairs = [(sorted(rows[row] for row in held), number) for number, (_, held) in enumerate(split.sides)]
        folds = [held for held, _ in sorted(pairs)]
        purged = [split.purges[number] for _, number in sorted(pairs)] if split.purges else []
        more = [[sorted(columns[0][row] for row in each) for each in purged]] if purged else []
        train = sorted(rows[row] for row in split.train)
        said = [split.strategy, folds if len(folds) > 1 else folds[0], [name for name, *_ in train], *more]
        assert split.digest(*columns) == hash_json(said)
        said = [split.strategy, folds, train, sorted(target.items()), *more]
        assert split.contents_digest(*columns, target) == hash_json(said)
    some = np.array([5, 3, 8000])
    assert rows_digest(some, *columns) == hash_json(sorted(rows[row] for row in some))


def hash_json(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
