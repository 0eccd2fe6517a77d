"""Components that grow as edges are added."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.numerics.forest import Forest
from img2prompt_cache.numerics.similarity_graph import edge_components


@given(n=st.integers(1, 60), edges=st.integers(0, 80), pieces=st.integers(1, 8), seed=st.integers(0, 99))
def test_components_are_those_of_all_edges_at_once(n, edges, pieces, seed):
    left, right = np.random.default_rng(seed).integers(0, n, (2, edges))
    forest = Forest(n)
    for some in np.array_split(np.arange(edges), pieces):
        forest.join(left[some], right[some])
    label, expected = forest.labels(), edge_components(n, left, right)
    np.testing.assert_array_equal(label[:, None] == label, expected[:, None] == expected)
    np.testing.assert_array_equal(forest.find(label), label)
    some = np.random.default_rng(seed).integers(0, n, 5)
    np.testing.assert_array_equal(forest.find(some), label[some])
