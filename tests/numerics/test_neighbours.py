from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.neighbours import (
    flat_index,
    inverse_power,
    nearest,
    nearest_agreement,
    weighted_sum,
)


@given(seed=st.integers(0, 99), k=st.integers(1, 12))
def test_agreement_is_the_length_of_the_mean_of_the_most_similar_values(seed, k):
    rng = np.random.default_rng(seed)
    similarities = rng.uniform(0, 1, (4, 9)).astype(np.float32)
    values = unit(rng.normal(size=(9, 3)))
    found = nearest_agreement(similarities, values, k)
    for row, some in enumerate(similarities):
        top = np.argsort(-some)[:k]
        mean = np.average(values[top], axis=0, weights=some[top])
        assert found[row] == pytest.approx(np.linalg.norm(mean), abs=1e-5)
    order = rng.permutation(9)
    np.testing.assert_allclose(nearest_agreement(similarities[:, order], values[order], k), found, atol=1e-5)


def test_equal_values_agree_and_nothing_similar_agrees_on_nothing():
    same = np.repeat(unit(np.ones((1, 3))), 300, axis=0)
    assert nearest_agreement(np.ones((400, 300), np.float32), same, 10) == pytest.approx(1)
    assert nearest_agreement(np.zeros((1, 300), np.float32), same, 10) == 0


def test_nearest_equals_scikit_learn():
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng.normal(size=(200, 16))), unit(rng.normal(size=(30, 16)))
    distances, rows = nearest(flat_index(vectors), queries, 7)
    oracle = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(vectors)
    expected, expected_rows = oracle.kneighbors(queries)
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    assert np.array_equal(rows, expected_rows)


def test_k_is_cut_to_the_number_of_vectors():
    distances, rows = nearest(flat_index(np.eye(3, dtype="f")), np.eye(3, dtype="f")[:1], 9)
    assert distances.shape == rows.shape == (1, 3)


@given(arrays(np.float32, (4, 5), elements=st.floats(0, 2, width=32)), st.floats(0, 8))
def test_weights_are_finite_and_fall_with_distance(distances, power):
    distances = np.sort(distances, axis=1)
    weights = inverse_power(distances, power)
    assert (weights[:, 0] == 1).all()
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (np.diff(weights, axis=1) <= 0).all()


def test_weights_are_the_inverse_power():
    np.testing.assert_allclose(
        inverse_power(np.array([[0.1, 0.2, 0.4]], "f"), 3), [[1, 1 / 8, 1 / 64]], rtol=1e-6
    )


def test_weighted_sum_equals_gathering():
    rng = np.random.default_rng(0)
    weights, rows, values = (
        rng.random((6, 3)),
        rng.integers(0, 10, (6, 3)),
        rng.normal(size=(10, 4)).astype("f"),
    )
    np.testing.assert_allclose(
        weighted_sum(weights, rows, values), np.einsum("mk,mkt->mt", weights, values[rows]), rtol=1e-5
    )


@pytest.mark.parametrize("order", ["faiss, torch", "torch, faiss"])
def test_faiss_and_torch_compute_in_one_process(order):
    script = f"""
import numpy, {order}
x = numpy.random.default_rng(0).normal(size=(3000, 64)).astype("f")
for _ in range(2):
    index = faiss.IndexFlatIP(64); index.add(x); index.search(x, 5)
    layer = torch.nn.Linear(64, 64); layer(torch.tensor(x)).sum().backward()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
