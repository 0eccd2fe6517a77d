from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.numerics import clusters as module
from img2prompt_cache.numerics.clusters import cluster_vectors, nearest_centroids
from img2prompt_cache.numerics.metrics import unit


def blobs(n: int, kinds: int, seed: int, apart: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = rng.integers(kinds, size=n)
    return unit(rng.normal(size=(kinds, 16))[kind] + apart * rng.normal(size=(n, 16))), kind


@pytest.mark.parametrize("block", [16384, 100, 7])
def test_clusters_depend_on_the_seed_and_not_on_the_size_of_a_block(monkeypatch, block):
    vectors, _ = blobs(500, 30, 0, apart=0.5)
    whole = cluster_vectors(vectors, 3, 40)
    assert not np.array_equal(whole, cluster_vectors(vectors, 4, 40))
    monkeypatch.setattr(module, "BLOCK", block)
    assert np.array_equal(cluster_vectors(vectors, 3, 40), whole)


@given(st.integers(2, 200), st.integers(1, 60), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_every_vector_is_in_one_cluster_and_equal_vectors_in_the_same(n, count, seed):
    vectors, _ = blobs(n, 5, seed)
    twice = np.concatenate([vectors, vectors[::-1]])
    label = cluster_vectors(twice, seed, count)
    assert label.min() >= 0
    assert np.array_equal(label[:n], label[n:][::-1])


def test_a_cluster_holds_what_is_alike(monkeypatch):
    """Few of the pairs of one cluster are of two kinds, though only a sample taught it."""
    monkeypatch.setattr(module, "SAMPLE", 400)
    vectors, kind = blobs(3000, 40, 1)
    label = cluster_vectors(vectors, 0, 60)
    same = label[:, None] == label
    assert (kind[:, None] == kind)[same].mean() > 0.6
    assert 10 < len(np.unique(label)) <= 70


def test_there_is_a_cluster_for_a_number_of_vectors():
    vectors, _ = blobs(5000, 400, 1, apart=0.5)
    assert 30 < len(np.unique(cluster_vectors(vectors, 0))) <= 60


def test_centroids_that_float32_cannot_tell_apart_are_told_apart_in_float64():
    rng = np.random.default_rng(0)
    vectors, centroids = unit(rng.normal(size=(200, 64))), unit(rng.normal(size=(9, 64)))
    centroids = np.concatenate([centroids, centroids, np.nextafter(centroids, np.float32(1))])
    exact = vectors.astype(np.float64) @ centroids.T.astype(np.float64)
    found = nearest_centroids(vectors, centroids)
    np.testing.assert_allclose(exact[np.arange(200), found], exact.max(axis=1), atol=1e-12, rtol=0)
    one_by_one = np.concatenate([nearest_centroids(row[None], centroids) for row in vectors])
    assert np.array_equal(found, one_by_one)
