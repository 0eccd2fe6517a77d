from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.cache.texts import Texts
from img2prompt_cache.data.groups import factorize, merge_groups, prompt_groups, renumber
from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.similarity_graph import edge_components


def embeddings(n, d=3, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def test_near_identical_prompts_share_a_group_also_through_others():
    angle = np.deg2rad([0, 30, 60, 180])
    targets = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert prompt_groups(targets, list("abcd")).tolist() == [0, 0, 0, 1]
    assert prompt_groups(targets, list("abcd"), threshold=0.9).tolist() == [0, 1, 2, 3]


def test_equal_prompts_share_a_group():
    assert prompt_groups(np.eye(4, dtype="f")[[2, 0, 2]], ["x", "y", "x"]).tolist() == [0, 1, 0]


def test_identical_images_share_a_group_also_through_others():
    got = prompt_groups(np.eye(5, dtype="f"), list("abcde"), ["1", "2", "1", "3", "3"])
    assert got.tolist() == [0, 1, 0, 2, 2]
    chain = prompt_groups(np.eye(3, dtype="f")[[0, 0, 1, 2]], ["a", "a", "b", "c"], ["1", "2", "2", "3"])
    assert chain.tolist() == [0, 0, 0, 1]


def test_no_rows_no_groups():
    assert prompt_groups(np.zeros((0, 3), "f"), [], []).tolist() == []


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 9), st.permutations(range(30)))
def test_groups_do_not_depend_on_the_order_of_rows(prompts, images, order):
    targets = embeddings(10)[prompts]
    sha = [row % (images + 1) for row in range(len(prompts))]
    groups = prompt_groups(targets, prompts, sha)
    order = [row for row in order if row < len(prompts)]
    moved = prompt_groups(targets[order], [prompts[row] for row in order], [sha[row] for row in order])
    assert np.array_equal(moved[:, None] == moved, groups[order][:, None] == groups[order])
    assert np.array_equal(
        np.unique(groups, return_index=True)[1], np.sort(np.unique(groups, return_index=True)[1])
    )


def test_targets_with_nan_are_refused():
    targets = np.eye(2, dtype="f")
    targets[0, 1] = np.nan
    with pytest.raises(Img2PromptError, match="targets hold NaN"):
        prompt_groups(targets, ["a", "b"])


@given(st.lists(st.sampled_from([0, 1, 2, 3, 17, 10**12, -5, -(2**62)]), max_size=30))
def test_groups_are_numbered_in_the_order_of_their_first_rows(groups):
    number = renumber(np.array(groups, np.int64))
    assert number.tolist() == [[*dict.fromkeys(groups)].index(group) for group in groups]
    named = renumber(np.array([str(group) for group in groups]))
    assert named.tolist() == number.tolist()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12),
    st.sampled_from(["one", "other", ""]),
)
def test_merged_groups_are_numbered_by_their_first_rows(pairs, single):
    """Also where all groups of one side are single rows, which takes no graph."""
    one, other = (
        renumber(np.array(each, np.int64)) for each in (zip(*pairs, strict=True) if pairs else ([], []))
    )
    rows = np.arange(len(one))
    one, other = rows if single == "one" else one, rows if single == "other" else other
    last = one.max(initial=-1) + 1
    wanted = edge_components(last + other.max(initial=-1) + 1, one, last + other)[one]
    assert merge_groups(one, other).tolist() == wanted.tolist() == renumber(wanted).tolist()


def test_texts_are_numbered_in_the_order_of_first_appearance():
    values = ["b", "a", "b", "é", "", "a"]
    assert factorize(Texts.of(values)).tolist() == factorize(values).tolist() == [0, 1, 0, 2, 3, 1]
