from __future__ import annotations

import numpy as np

from img2prompt_cache.heads.columns import places, take, widths


def test_columns_are_found_and_taken_in_any_order():
    X = np.arange(12, dtype=np.float32).reshape(2, 6)
    place = places([("a", 1), ("b", 3), ("c", 2)])
    assert place == {"a": (0, 1), "b": (1, 4), "c": (4, 6)}
    ranges = [place["c"], place["a"]]
    np.testing.assert_array_equal(take(X, ranges), X[:, [4, 5, 0]])
    assert widths(ranges) == (2, 1)
    assert np.shares_memory(take(X, [place["b"], place["c"]]), X)
