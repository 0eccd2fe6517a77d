from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.numerics import near_rows as module
from img2prompt_cache.numerics import similarity_graph
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.near_rows import count_near_pairs, near_partners


def made(n: int, m: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, width)) * np.geomspace(3, 0.1, width)
    apart = rng.choice([0.0, 0.05, 0.3], (n + m, 1))
    vectors = unit(centres[rng.integers(12, size=n + m)] + apart * rng.normal(size=(n + m, width)))
    return vectors[:n], vectors[n:]


def exact(one: np.ndarray, other: np.ndarray, threshold: float) -> np.ndarray:
    """The oracle: all products, in float64."""
    return one.astype(np.float64) @ other.T.astype(np.float64) >= threshold


@pytest.mark.parametrize("axes", [2, 64])
@pytest.mark.parametrize("few", [0.0, 1 / 128, 1.0])
@pytest.mark.parametrize("block", [5, 64, 2048])
@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.99])
def test_a_partner_is_found_exactly_where_brute_force_finds_one(monkeypatch, axes, few, block, threshold):
    monkeypatch.setattr(similarity_graph, "AXES", axes)
    monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "READ", 3 * block)
    vectors, others = made(300, 90, 20, 0)
    near = exact(vectors, others, threshold)
    partner = near_partners(vectors, others, threshold)
    found = partner >= 0
    assert np.array_equal(found, near.any(axis=1))
    assert near[found, partner[found]].all()
    assert found.sum() > 0
    assert count_near_pairs(vectors, others, threshold) == near.sum()


@given(st.integers(0, 40), st.integers(0, 30), st.integers(0, 1000), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_any_number_of_vectors_is_compared(n, m, seed, threshold):
    vectors, others = made(n, m, 6, seed)
    near = exact(vectors, others, min(threshold, 1 - 1e-6))
    assert np.array_equal(near_partners(vectors, others, threshold) >= 0, near.any(axis=1))
    assert count_near_pairs(vectors, others, threshold) == near.sum()


@pytest.mark.parametrize("few", [0.0, 1.0])
def test_cosines_that_float32_rounds_to_either_side_are_told_in_float64(monkeypatch, few):
    """The threshold is itself the cosine of a pair, as float64 has it, and as it is one step beside that."""
    monkeypatch.setattr(module, "FEW", few)
    vectors, others = made(50, 40, 384, 3)
    cosines = vectors.astype(np.float64) @ others.T.astype(np.float64)
    for cosine in np.sort(cosines[cosines < 0.9].ravel())[-20:]:
        for threshold in (cosine - 1e-9, cosine + 1e-9):
            near = cosines >= threshold
            assert count_near_pairs(vectors, others, threshold) == near.sum()
            assert np.array_equal(near_partners(vectors, others, threshold) >= 0, near.any(axis=1))


def test_equal_vectors_are_near_at_a_threshold_of_one():
    vectors, _ = made(30, 1, 384, 1)
    assert (near_partners(vectors, vectors[::-1].copy(), 1.0) >= 0).all()
