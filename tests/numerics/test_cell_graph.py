from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.numerics import cell_graph as module
from img2prompt_cache.numerics.cell_graph import cell_components
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.similarity_graph import similarity_components


def made(n: int, seed: int) -> np.ndarray:
    """Kinds of vectors that differ more or less from each other."""
    rng = np.random.default_rng(seed)
    kinds = max(2, n // 5)
    apart = rng.choice([0.02, 0.1, 0.3], (n, 1))
    return unit(rng.normal(size=(kinds, 12))[rng.integers(kinds, size=n)] + apart * rng.normal(size=(n, 12)))


def pairs(label: np.ndarray) -> np.ndarray:
    return label[:, None] == label


@pytest.mark.parametrize("threshold", [0.8, 0.95])
@pytest.mark.parametrize("axes", [192, 4])
@pytest.mark.parametrize("block", [2048, 13])
def test_nearly_all_pairs_of_a_component_are_found_and_none_that_is_not_there(
    monkeypatch, threshold, axes, block
):
    monkeypatch.setattr(module, "AXES", axes)
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "READ", 10 * block)
    vectors = made(1200, 0)
    label, recall = cell_components(vectors, threshold)
    exact = pairs(similarity_components(vectors, threshold))
    found = pairs(label)
    assert not (found & ~exact).any()
    assert (found & exact).sum() / exact.sum() > 0.95  # one pair that is missed can divide many
    assert recall >= 0.99
    assert len(np.unique(label)) > 50


def test_recall_is_the_share_of_the_near_pairs_that_were_compared(monkeypatch):
    """With one cell searched for each vector, counted by hand from the side of every vector."""
    monkeypatch.setattr(module, "MOST_PROBES", 1)
    vectors = made(900, 1)
    compared = np.zeros((900, 900), bool)
    join = module._join_near

    def watched(forest, vectors, short, order, left, right, threshold):
        compared[np.ix_(order[right], order[left])] = True
        join(forest, vectors, short, order, left, right, threshold)

    monkeypatch.setattr(module, "_join_near", watched)
    _, recall = cell_components(vectors, 0.7)
    near = vectors @ vectors.T >= 0.7
    np.fill_diagonal(near, val=False)
    assert recall == pytest.approx((near & compared).sum() / near.sum(), abs=1e-4)
    assert recall < 0.999


@given(st.integers(1, 60), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_where_every_cell_is_searched_it_is_exact(n, seed):
    vectors = made(n, seed)
    before, module.TARGET_RECALL = module.TARGET_RECALL, 1.0
    try:
        label, recall = cell_components(vectors, 0.9)
    finally:
        module.TARGET_RECALL = before
    if recall == 1 and n <= module.QUERIES:  # all were compared with all
        assert np.array_equal(pairs(label), pairs(similarity_components(vectors, 0.9)))
