from __future__ import annotations

import numpy as np

from img2prompt_cache.data.extra_pairs import near_any
from img2prompt_cache.numerics.metrics import unit


def test_near_is_a_cosine_of_at_least_the_threshold():
    rng = np.random.default_rng(0)
    one, other = unit(rng.normal(size=(50, 3))), unit(rng.normal(size=(20, 3)))
    wanted = (one @ other.T).max(axis=1) >= 0.8
    assert np.array_equal(near_any(one.astype(np.float32), other.astype(np.float32), 0.8), wanted)
