from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.data.feature_blocks import (
    BlockWidth,
    FeatureBlocks,
    block_ranges,
    concatenate,
    select_blocks,
    select_widths,
    width,
)
from img2prompt_cache.errors import UsageError


def test_blocks_are_selected_in_any_order():
    X = np.arange(12, dtype=np.float32).reshape(2, 6)
    place = block_ranges([("a", 1), ("b", 3), ("c", 2)])
    assert place == {"a": (0, 1), "b": (1, 4), "c": (4, 6)}
    ranges = [place["c"], place["a"]]
    np.testing.assert_array_equal(select_blocks(X, ranges), X[:, [4, 5, 0]])
    assert select_widths((1, 3, 2), ranges) == (2, 1)
    assert select_widths((1, 1, 2, 2), [place["b"], place["a"]]) == (1, 2, 1)
    assert select_widths((4, 2), [place["b"], place["c"]]) == (3, 2)  # not of whole blocks
    assert not select_widths((4, BlockWidth(2, standardise=False)), [place["c"]])[0].standardise
    assert np.shares_memory(select_blocks(X, [place["b"], place["c"]]), X)


def test_blocks_of_vectors_become_one_array_and_a_single_block_stays_as_it_is():
    a, b = np.ones((2, 1), np.float32), np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(concatenate([a, b]), np.hstack([a, b]))
    trunk = np.zeros((2, 5, 4), np.float32)
    assert concatenate([a]) is a
    assert concatenate([trunk]) is trunk
    assert select_blocks(trunk, [(0, 20)]) is trunk
    with pytest.raises(UsageError, match="not among the blocks"):
        select_blocks(trunk, [(0, 10)])


def test_a_trunk_keeps_its_shape_beside_vectors():
    a, trunk, b = (
        np.random.default_rng(0).normal(size=s).astype(np.float32) for s in ((6, 3), (6, 5, 4), (6, 2))
    )
    X = concatenate([a, trunk, b])
    assert isinstance(X, FeatureBlocks)
    assert (X.shape, len(X), width(X)) == ((6, 25), 6, 25)
    place = block_ranges([("a", 3), ("trunk", 20), ("b", 2)])
    assert select_blocks(X, [place["trunk"]]) is trunk
    np.testing.assert_array_equal(select_blocks(X, [place["b"], place["a"]]), np.hstack([b, a]))
    both = select_blocks(X, [place["trunk"], place["b"]])
    assert both.blocks[0] is trunk
    assert both.shape == (6, 22)
    rows = np.array([True, False, False, True, False, True])
    np.testing.assert_array_equal(select_blocks(X[rows], [place["trunk"]]), trunk[rows])
    np.testing.assert_array_equal(select_blocks(X[2:4], [place["a"]]), a[2:4])
    assert len(X[:0]) == 0
    for bad in ((0, 2), (3, 22), (0, 25)):
        with pytest.raises(UsageError, match="not among the blocks"):
            select_blocks(X, [bad])
