from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.numerics import projected_search
from img2prompt_cache.numerics.disk_array import to_disk
from img2prompt_cache.numerics.ivf import TARGET_RECALL, hold_back, recall_of
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.projected_search import ProjectedSearch, closest, fit_projected

WIDTH = 48


def clouds(n: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around forty centres, in float16; most of their variance is in a few directions."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, WIDTH))
    scale = 1 / np.sqrt(1 + np.arange(WIDTH))
    return unit((centres[rng.integers(40, size=n)] + 0.6 * rng.normal(size=(n, WIDTH))) * scale).astype(
        np.float16
    )


def brute(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = 1 - queries.astype(float) @ vectors.astype(float).T
    rows = np.argsort(distances, axis=1)[:, :k]
    return np.take_along_axis(distances, rows, axis=1), rows


VECTORS = clouds(3000)


@pytest.fixture(scope="module")
def fitted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projected_search, "DIMENSIONS", 16)
        drawn, held = hold_back(np.arange(3000) // 3, 0)
        return fit_projected(VECTORS, VECTORS[drawn].astype(np.float32), held, 0)


def test_nearly_all_neighbours_of_new_vectors_are_found(fitted):
    search, index = fitted
    queries = unit(clouds(400, seed=1))
    true = brute(VECTORS, queries, 10)
    assert recall_of(*search.nearest(index, VECTORS, queries, 10), *true) >= 0.99
    assert TARGET_RECALL <= search.cells.recall <= 1
    assert 10 < search.candidates < 500
    assert 1 < search.cells.probes < len(search.cells.centroids) == 55
    assert (search.codes.shape, search.codes.dtype) == ((3000, 16), np.uint8)
    # Projections alone would not do.
    assert recall_of(*search.nearest(index, VECTORS, queries, 10), *true) > 0.05 + np.mean(
        [
            len(set(row) & set(wanted)) / 10
            for row, wanted in zip(
                np.argsort(-(queries @ search.projection) @ (VECTORS.astype("f") @ search.projection).T)[
                    :, :10
                ].tolist(),
                true[1].tolist(),
                strict=True,
            )
        ]
    )


def test_distances_are_those_of_the_vectors(fitted):
    search, index = fitted
    queries = unit(clouds(30, seed=2))
    distances, rows = search.nearest(index, VECTORS, queries, 7)
    expected = 1 - (queries[:, None].astype(float) * VECTORS[rows].astype(float)).sum(axis=2)
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.parametrize("k", [1, 40, 900, 5000])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_only_what_is_allowed_is_found_and_as_many_as_there_are(fitted, k, share):
    search, index = fitted
    among = np.random.default_rng(0).random(3000) < share
    queries = unit(clouds(9, seed=3))
    distances, rows = search.nearest(index, VECTORS, queries, k, among)
    assert rows.shape == distances.shape == (9, min(k, among.sum()))
    assert among[rows].all()
    assert np.isfinite(distances).all()
    assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_vectors_on_disk_give_the_same_bits(fitted):
    search, index = fitted
    mapped = to_disk([VECTORS[:700], VECTORS[700:]], WIDTH, np.float16)
    queries = unit(clouds(50, seed=4))
    for one, other in zip(
        search.nearest(index, mapped, queries, 12),
        search.nearest(index, VECTORS, queries, 12),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    drawn, held = hold_back(np.arange(3000), 0)
    again, same = (
        fit_projected(vectors, VECTORS[drawn].astype(np.float32), held, 0)[0].arrays()
        for vectors in (mapped, VECTORS)
    )
    assert all(np.array_equal(again[name], same[name]) for name in again)


def test_arrays_survive_the_file_and_give_the_same_index(fitted):
    search, index = fitted
    again = ProjectedSearch.from_arrays(load(save(search.arrays())))
    queries = unit(clouds(50, seed=5))
    for one, other in zip(
        again.nearest(again.index(VECTORS), VECTORS, queries, 10),
        search.nearest(index, VECTORS, queries, 10),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_candidates_that_are_none_are_never_among_the_nearest():
    candidates = np.array([[5, 9, -1, -1], [0, 1, 2, -1]])
    distances, rows = closest(VECTORS, VECTORS[[5, 2]].astype(np.float32), candidates, 2)
    assert rows[:, 0].tolist() == [5, 2]
    assert set(rows[0].tolist()) == {5, 9}
    assert np.isfinite(distances).all()


def test_vectors_that_are_all_alike_are_found():
    same = np.tile(unit(np.ones((1, 8))), (200, 1)).astype(np.float16)
    drawn, held = hold_back(np.arange(200), 0)
    search, index = fit_projected(same, same[drawn].astype(np.float32), held, 0)
    assert search.cells.recall == 1
    assert search.nearest(index, same, same[:2].astype(np.float32), 10)[1].shape == (2, 10)


def test_an_index_of_other_vectors_is_refused(fitted):
    search, _ = fitted
    with pytest.raises(Img2PromptError, match="of 3000 vectors of 48 values, not of the 2999 of 48"):
        search.index(VECTORS[1:])
    with pytest.raises(Img2PromptError, match="of 3000 vectors of 48 values, not of the 3000 of 47"):
        search.index(VECTORS[:, 1:])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("candidates", np.array([0])),
        ("candidates", np.array([1 << 40])),
        ("candidates", np.array([1, 2])),
        ("candidates", np.array([np.nan])),
        ("projection", np.zeros((48, 15), np.float32)),
        ("projection", np.zeros((48, 16))),
        ("projection", np.zeros(48, np.float32)),
        ("projection", np.full((48, 16), np.inf, np.float32)),
        ("projection", np.float32(1)),
        ("low", np.zeros(15, np.float32)),
        ("span", np.full(16, np.nan, np.float32)),
        ("codes", np.zeros((2999, 16), np.uint8)),
        ("codes", np.zeros((3000, 17), np.uint8)),
        ("codes", np.zeros((3000, 16), np.int16)),
        ("codes", np.zeros(0, np.uint8)),
        ("centroids", np.zeros((55, 17), np.float32)),
        ("cell", np.full(3000, 55, np.int32)),
        ("probes", np.array([56])),
    ],
)
def test_damaged_arrays_are_refused(fitted, name, value):
    with pytest.raises(Img2PromptError, match="the index is damaged"):
        ProjectedSearch.from_arrays({**fitted[0].arrays(), name: np.asarray(value)})


@pytest.mark.parametrize("name", ["projection", "low", "span", "codes", "candidates", "cell"])
def test_a_missing_array_is_named(fitted, name):
    arrays = {key: value for key, value in fitted[0].arrays().items() if key != name}
    with pytest.raises(Img2PromptError, match=f"the index is damaged.*{name}"):
        ProjectedSearch.from_arrays(arrays)


def test_fewer_probes_and_candidates_find_less(fitted):
    search, _ = fitted
    few = replace(search, candidates=1, cells=replace(search.cells, probes=1))
    queries = unit(clouds(100, seed=6))
    true = brute(VECTORS, queries, 10)
    assert recall_of(*few.nearest(few.index(VECTORS), VECTORS, queries, 10), *true) < 0.97
