from __future__ import annotations

import numpy as np

from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.compose.stand_in import added, removed

RNG = np.random.default_rng(0)
BASE, PHRASES = (unit(RNG.standard_normal((n, 8)).astype(np.float32)) for n in (3, 5))
GOAL = unit(RNG.standard_normal((1, 8)).astype(np.float32))[0]
WEIGHTS, LENGTHS = np.array([4, 9, 2], np.float32), np.array([1, 2, 3, 1, 5], np.float32)


def test_adding_a_phrase_is_a_weighted_sum():
    found = added(BASE, WEIGHTS, PHRASES, LENGTHS, GOAL)
    for row in range(3):
        for other in range(5):
            whole = WEIGHTS[row] * BASE[row] + LENGTHS[other] * PHRASES[other]
            np.testing.assert_allclose(found[row, other], whole @ GOAL / np.linalg.norm(whole), atol=1e-6)


def test_leaving_out_what_was_added_gives_back_the_text():
    whole = 4 * BASE[0] + 2 * PHRASES[1]
    size = float(np.linalg.norm(whole))
    # The sum is shorter than its words are many; scaled to them, the rest is found again.
    np.testing.assert_allclose(removed(whole / size, size, PHRASES[1], 2.0), BASE[0], atol=1e-6)


def test_leaving_out_all_there_is_changes_nothing():
    np.testing.assert_array_equal(removed(BASE[0], 3.0, BASE[0], 3.0), BASE[0])
