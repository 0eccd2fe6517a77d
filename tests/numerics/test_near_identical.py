from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.numerics.near_identical import MINILM_THRESHOLD, fit_threshold


def embeddings(n=300, d=64, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def test_where_unlike_prompts_are_orthogonal_it_is_about_that_of_minilm():
    assert fit_threshold(embeddings(d=384)) == pytest.approx(MINILM_THRESHOLD, abs=0.03)


@given(shift=st.floats(0, 20), seed=st.integers(0, 99))
def test_a_direction_that_all_embeddings_share_moves_it_with_the_cosines(shift, seed):
    """A shared direction maps a cosine c to (c + shift²) / (1 + shift²): so does the threshold."""
    vectors = embeddings(120, seed=seed)
    shifted = unit(np.concatenate([vectors, np.full((120, 1), shift, np.float32)], axis=1))
    wanted = (fit_threshold(vectors) + shift**2) / (1 + shift**2)
    assert 1 - fit_threshold(shifted) == pytest.approx(1 - wanted, rel=0.02)


@given(n=st.integers(0, 400), seed=st.integers(0, 9))
def test_it_is_a_cosine_that_does_not_depend_on_the_order_or_on_rotations(n, seed):
    vectors = embeddings(n, 8, seed)
    threshold = fit_threshold(vectors)
    assert 0 < threshold < 1
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0].astype(np.float32)
    assert fit_threshold(vectors @ rotation) == pytest.approx(threshold, abs=1e-3)
    if n < 300:  # all pairs are compared
        assert fit_threshold(vectors[::-1]) == threshold


def test_a_sample_of_the_pairs_tells_it_as_well_as_all():
    vectors = embeddings(2000, 16)
    everything = np.quantile((vectors @ vectors.T)[np.triu_indices(2000, 1)], 0.25)
    assert 1 - fit_threshold(vectors) == pytest.approx((1 - 0.787234) * (1 - everything), rel=0.01)


def test_equal_embeddings_have_a_threshold_below_1():
    assert 0.999 < fit_threshold(np.ones((5, 1), np.float32)) < 1
