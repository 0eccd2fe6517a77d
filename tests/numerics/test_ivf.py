from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics.ivf import TARGET_RECALL, Cells, cell_index, fit_cells, hold_back, recall_of
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.neighbours import nearest


def clouds(n: int, seed: int = 0, width: int = 16) -> np.ndarray:
    """Unit vectors around forty centres, in float16."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, width))
    return unit(centres[rng.integers(40, size=n)] + 0.6 * rng.normal(size=(n, width))).astype(np.float16)


def brute(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = 1 - queries.astype(float) @ vectors.astype(float).T
    rows = np.argsort(distances, axis=1)[:, :k]
    return np.take_along_axis(distances, rows, axis=1), rows


VECTORS = clouds(3000)


@pytest.fixture(scope="module")
def fitted() -> tuple[Cells, object]:
    drawn, held = hold_back(np.arange(3000) // 3, 0)
    return fit_cells(VECTORS, VECTORS[drawn].astype(np.float32), held, 0)


def test_nearly_all_neighbours_of_new_vectors_are_found(fitted):
    cells, index = fitted
    queries = unit(clouds(400, seed=1))
    true = brute(VECTORS, queries, 10)
    assert recall_of(*nearest(index, queries, 10), *true) >= 0.99
    assert TARGET_RECALL <= cells.recall <= 1
    assert 1 < cells.probes < len(cells.centroids) == 55
    index.nprobe = cells.probes // 3
    assert recall_of(*nearest(index, queries, 10), *true) < 0.99  # it does not look into more than it takes
    index.nprobe = cells.probes


def test_every_vector_lies_in_the_cell_of_its_nearest_centroid(fitted):
    cells, _ = fitted
    similarity = VECTORS.astype(float) @ cells.centroids.T
    chosen = np.take_along_axis(similarity, cells.cell[:, None].astype(int), axis=1)[:, 0]
    np.testing.assert_allclose(chosen, similarity.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(cells.centroids, axis=1), 1, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 60), share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_with_every_cell_the_search_is_brute_force_among_whatever_is_allowed(fitted, k, share, seed):
    cells, _ = fitted
    index = cell_index(VECTORS, replace(cells, probes=len(cells.centroids)))
    among = np.random.default_rng(seed).random(3000) < share
    among[seed] = True
    queries = unit(clouds(5, seed=seed))
    distances, rows = nearest(index, queries, k, among=among)
    expected, _ = brute(VECTORS[among], queries, k)
    assert distances.shape == rows.shape == expected.shape
    assert among[rows].all()
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    given_rows = 1 - (queries[:, None].astype(float) * VECTORS[rows].astype(float)).sum(axis=2)
    np.testing.assert_allclose(distances, given_rows, atol=1e-6)


def test_as_many_as_asked_for_are_found_where_the_cells_looked_into_hold_fewer(fitted):
    cells, _ = fitted
    index = cell_index(VECTORS, replace(cells, probes=1))
    queries = unit(clouds(20, seed=2))
    distances, rows = nearest(index, queries, 600)
    np.testing.assert_allclose(distances, brute(VECTORS, queries, 600)[0], atol=1e-6)
    assert rows.min() >= 0


def test_arrays_survive_the_file_and_give_the_same_index(fitted):
    cells, index = fitted
    again = Cells.from_arrays(load(save(cells.arrays())))
    assert (again.probes, again.recall) == (cells.probes, cells.recall)
    queries = unit(clouds(50, seed=3))
    for one, other in zip(
        nearest(cell_index(VECTORS, again), queries, 10), nearest(index, queries, 10), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_one_seed_gives_one_partition():
    vectors = clouds(600)
    drawn, held = hold_back(np.arange(600), 0)
    one, other, third = (
        fit_cells(vectors, vectors[drawn].astype(np.float32), held, seed)[0].arrays() for seed in (0, 0, 1)
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(one["centroids"], third["centroids"])


def test_float32_vectors_are_searched_to_the_precision_of_float16():
    vectors = unit(
        np.random.default_rng(0).normal(size=(900, 13))
    )  # a width that no vector instruction divides
    drawn, held = hold_back(np.arange(900), 0)
    cells, index = fit_cells(vectors, vectors[drawn], held, 0)
    distances, rows = nearest(index, vectors[:40], 5)
    assert (rows[:, 0] == np.arange(40)).all()
    np.testing.assert_allclose(distances, brute(vectors, vectors[:40], 5)[0], atol=2e-3)
    assert cells.recall >= TARGET_RECALL


def test_vectors_that_are_all_alike_are_found():
    same = np.tile(unit(np.ones((1, 8))), (200, 1)).astype(np.float16)
    drawn, held = hold_back(np.arange(200), 0)
    cells, index = fit_cells(same, same[drawn].astype(np.float32), held, 0)
    assert cells.recall == 1
    assert nearest(index, same[:2].astype(np.float32), 10)[1].shape == (2, 10)


def test_a_neighbour_as_near_as_the_last_is_as_good():
    best, true = np.array([[0.1, 0.2]], "f"), np.array([[1, 2]])
    assert recall_of(best, np.array([[1, 7]]), best, true) == 1
    assert recall_of(np.array([[0.1, 0.3]], "f"), np.array([[1, 7]]), best, true) == 0.5
    assert recall_of(np.array([[0.3, 0.4]], "f"), np.array([[6, 7]]), best, true) == 0


@given(n=st.integers(2, 400), size=st.integers(1, 200), seed=st.integers(0, 99))
def test_what_is_held_back_keeps_groups_whole_and_leaves_half(n, size, seed):
    groups = np.arange(n) // size
    drawn, held = hold_back(groups, seed)
    assert len(np.unique(drawn)) == len(drawn) == min(500, n // 2)
    assert held[drawn].all()
    assert (~held).sum() >= n // 2
    whole = np.isin(groups, groups[drawn])
    assert np.array_equal(held, whole) or (2 * whole.sum() > n and held.sum() == len(drawn))


def test_an_index_of_other_vectors_is_refused(fitted):
    cells, _ = fitted
    with pytest.raises(Img2PromptError, match="of 3000 vectors of 16 values, not of the 2999 of 16"):
        cell_index(VECTORS[1:], cells)
    with pytest.raises(Img2PromptError, match="of 3000 vectors of 16 values, not of the 3000 of 15"):
        cell_index(VECTORS[:, 1:], cells)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probes", np.array([0])),
        ("probes", np.array([56])),
        ("probes", np.array([1, 2])),
        ("probes", np.array([np.inf])),
        ("probes", np.array([[3]])),
        ("recall", np.array([], "d")),
        ("cell", np.full(3000, 55, np.int32)),
        ("cell", np.full(3000, -1, np.int32)),
        ("cell", np.zeros(3000, np.int64)),
        ("cell", np.zeros((3000, 1), np.int32)),
        ("cell", np.zeros(0, np.int32)),
        ("centroids", np.full((55, 16), np.nan, np.float32)),
        ("centroids", np.zeros((55, 16))),
        ("centroids", np.zeros((0, 16), np.float32)),
        ("centroids", np.zeros(55, np.float32)),
        ("centroids", np.float32(1)),
    ],
)
def test_damaged_arrays_are_refused(fitted, name, value):
    with pytest.raises(Img2PromptError, match="the index is damaged"):
        Cells.from_arrays({**fitted[0].arrays(), name: np.asarray(value)})


@pytest.mark.parametrize("name", ["centroids", "cell", "probes", "recall"])
def test_a_missing_array_is_named(fitted, name):
    arrays = {key: value for key, value in fitted[0].arrays().items() if key != name}
    with pytest.raises(Img2PromptError, match=f"the index is damaged.*{name}"):
        Cells.from_arrays(arrays)
