from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache import components as module
from img2prompt_cache.components import components, near
from img2prompt_cache.metrics import unit


def walk(adjacent):
    """Connected components by depth-first search: the oracle."""
    label = np.full(len(adjacent), -1)
    for start in range(len(adjacent)):
        if label[start] < 0:
            stack = [start]
            while stack:
                node = stack.pop()
                if label[node] < 0:
                    label[node] = start
                    stack.extend(np.flatnonzero(adjacent[node]).tolist())
    return label


def same_partition(a, b):
    return np.array_equal(a[:, None] == a, b[:, None] == b)


@pytest.mark.parametrize(("block", "edges"), [(1024, 2**22), (7, 2**22), (7, 3), (64, 0)])
@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.95])
def test_near_equals_a_walk_over_the_dense_graph(monkeypatch, block, edges, threshold):
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "MAX_EDGES", edges)
    vectors = unit(np.random.default_rng(0).normal(size=(60, 4)))
    assert same_partition(near(vectors, threshold), walk(vectors @ vectors.T >= threshold))


def test_near_of_nothing_and_of_one():
    assert near(np.zeros((0, 3), np.float32), 0.8).tolist() == []
    assert near(np.ones((1, 1), np.float32), 0.8).tolist() == [0]


def test_components_joins_along_edges():
    label = components(5, np.array([0, 3]), np.array([2, 2]))
    assert same_partition(label, np.array([0, 1, 0, 0, 2]))
    assert label.dtype == np.int64
