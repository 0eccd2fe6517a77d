from __future__ import annotations

import numpy as np
import pytest

from img2prompt_cache.numerics.hubs import ALPHA, corrected_queries
from img2prompt_cache.numerics.metrics import unit


@pytest.mark.parametrize("seed", range(5))
def test_prompts_rank_as_if_half_their_mean_cosine_with_predictions_were_subtracted(seed):
    rng = np.random.default_rng(seed)
    queries, known, bank = (unit(rng.normal(size=(n, 8)) + 0.5) for n in (20, 50, 30))
    expected = np.empty((20, 30))
    for i, q in enumerate(queries):
        for j, b in enumerate(bank):
            expected[i, j] = q @ b - ALPHA * np.mean([p @ b for p in known])
    found = corrected_queries(queries, known.mean(axis=0)) @ bank.T
    # Each row is scaled by a positive number, which changes no rank.
    scale = found[:, :1] / expected[:, :1]
    assert (scale > 0).all()
    np.testing.assert_allclose(found, expected * scale, atol=1e-5)


def test_without_a_mean_nothing_changes():
    queries = unit(np.random.default_rng(0).normal(size=(5, 8)))
    np.testing.assert_allclose(corrected_queries(queries, np.zeros(8, "f")), queries, atol=1e-7)


def test_a_prediction_that_the_correction_cancels_stays_finite():
    mean = np.eye(4, dtype=np.float32)[0]
    assert np.isfinite(corrected_queries(ALPHA * mean[None], mean)).all()
