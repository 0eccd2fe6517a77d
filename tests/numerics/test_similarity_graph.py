from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.numerics import similarity_graph as module
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.similarity_graph import edge_components, similarity_components


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
    assert same_partition(similarity_components(vectors, threshold), walk(vectors @ vectors.T >= threshold))


@pytest.mark.parametrize("axes", [1, 4, 64])
@pytest.mark.parametrize("few", [0, 1])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.999])
def test_a_sketch_of_few_directions_loses_no_pair(monkeypatch, axes, few, threshold):
    monkeypatch.setattr(module, "BLOCK", 37)
    monkeypatch.setattr(module, "SAMPLE", 50)
    monkeypatch.setattr(module, "AXES", axes)
    monkeypatch.setattr(module, "FEW", few)
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(30, 20)) * np.geomspace(3, 0.1, 20)
    apart = rng.choice([0.0, 0.1, 0.5], (300, 1))
    vectors = unit(centres[rng.integers(30, size=300)] + apart * rng.normal(size=(300, 20)))
    cosines = vectors @ vectors.T
    assert np.abs(cosines - threshold).min() > 1e-7  # none that rounding decides
    found = similarity_components(vectors, threshold)
    assert same_partition(found, walk(cosines >= threshold))
    assert 1 < len(np.unique(found)) < 300


def test_no_pair_is_lost_where_next_to_nothing_is_left_beside_the_directions(monkeypatch):
    """What is left of a vector that lies in them is the root of a rounding error."""
    monkeypatch.setattr(module, "SAMPLE", 400)
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(128, 128)))[0]
    crowd = rng.normal(size=(2000, 64)) @ basis[:64]
    lost = []
    for near_by in np.geomspace(5e-5, 1e-3, 100):
        one, off = rng.normal(size=64) @ basis[:64], rng.normal(size=64) @ basis[64:]
        one, off = one / np.linalg.norm(one), off / np.linalg.norm(off)
        lost.append((one + near_by * off, 0.8 * one + 0.6 * off))
    vectors = unit(np.concatenate([crowd, *map(np.stack, lost)]))
    cosines = vectors @ vectors.T
    sure = np.abs(cosines - 0.8) > 1e-6
    label = similarity_components(vectors, 0.8)
    joined = label[:, None] == label
    assert joined[sure & (cosines >= 0.8)].all()
    assert len(np.unique(label)) > 1000


def test_vectors_that_are_all_alike(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 32)
    monkeypatch.setattr(module, "SAMPLE", 10)
    monkeypatch.setattr(module, "MAX_EDGES", 100)
    vectors = np.repeat(unit(np.random.default_rng(0).normal(size=(1, 8))), 200, axis=0)
    assert not similarity_components(vectors, 0.9).any()


def test_near_of_nothing_and_of_one():
    assert similarity_components(np.zeros((0, 3), np.float32), 0.8).tolist() == []
    assert similarity_components(np.ones((1, 1), np.float32), 0.8).tolist() == [0]


def test_components_joins_along_edges():
    label = edge_components(5, np.array([0, 3]), np.array([2, 2]))
    assert same_partition(label, np.array([0, 1, 0, 0, 2]))
    assert label.dtype == np.int64
