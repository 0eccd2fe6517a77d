from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics.pairwise import paired_cosine_distances

from img2prompt_cache.numerics.metrics import cosine, mean_cosine, mse, retrieval, unit

matrices = arrays(np.float32, (5, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32))


@given(matrices)
def test_unit_gives_rows_of_length_one_and_leaves_zeros(x):
    got = unit(x)
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    zero = ~x.any(axis=1)
    np.testing.assert_allclose(np.linalg.norm(got[~zero].astype(float), axis=1), 1, atol=1e-6)
    assert not got[zero].any()


@given(matrices, st.floats(2**-10, 2**10))
def test_unit_does_not_depend_on_length(x, factor):
    np.testing.assert_allclose(unit(x.astype(np.float64) * factor), unit(x), atol=1e-6)


def test_unit_takes_half_precision():
    x = np.full((1, 4), 60000, np.float16)
    np.testing.assert_allclose(unit(x), 0.5)


def test_cosine_equals_scikit_learn():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 20))
    np.testing.assert_allclose(cosine(a, b), 1 - paired_cosine_distances(a, b))
    assert mean_cosine(a, b) == pytest.approx(cosine(a, b).mean())


def test_cosine_with_a_zero_vector_is_zero():
    assert cosine(np.zeros((1, 3)), np.ones((1, 3))) == 0


@given(st.integers(0, 2**32 - 1), st.integers(2, 400))
def test_mse_of_unit_vectors_is_the_cosine_in_other_words(seed, d):
    a, b = np.random.default_rng(seed).normal(size=(2, 6, d))
    assert mse(unit(a), unit(b)) == pytest.approx(2 * (1 - mean_cosine(a, b)) / d, abs=1e-6)


@pytest.mark.parametrize(("error", "similarity"), [(0.003, 0.424), (0.004, 0.232), (0.006, -0.152)])
def test_mse_docstring_states_true_figures(error, similarity):
    a = np.eye(1, 384)
    b = np.zeros((1, 384))
    b[0, :2] = similarity, np.sqrt(1 - similarity**2)
    assert mse(a, b) == pytest.approx(error, abs=1e-9)


def test_retrieval_equals_brute_force_across_blocks():
    rng = np.random.default_rng(1)
    bank, pred = rng.normal(size=(4096, 6)).astype("f"), rng.normal(size=(2100, 6)).astype("f")
    truth = rng.integers(0, len(bank), len(pred))
    order = np.argsort(-(unit(pred) @ unit(bank).T), axis=1)
    place = np.argmax(order == truth[:, None], axis=1)
    got = retrieval(pred, bank, truth, ks=(1, 5, 1000))
    assert got == {k: pytest.approx(np.mean(place < k), abs=1e-3) for k in (1, 5, 1000)}
    assert got[1000] > 0.1


def test_retrieval_finds_the_truth_itself():
    bank = np.eye(6, dtype=np.float32)
    assert retrieval(bank[[3, 1]], bank, np.array([3, 1])) == {1: 1.0, 5: 1.0}


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_ties_and_nan_count_against_the_prediction(value):
    pred = np.full((3, 4), value, np.float32)
    bank = np.ones((3, 4), np.float32)
    assert retrieval(pred, bank, np.arange(3), ks=(1, 2, 3)) == {1: 0.0, 2: 0.0, 3: 1.0}
