from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.reporting import nearest
from img2prompt_cache.reporting.nearest import count_near, nearest_rows


@given(
    n=st.integers(0, 40),
    q=st.integers(1, 5),
    k=st.integers(1, 6),
    block=st.integers(1, 50),
    products=st.integers(1, 200),
    seed=st.integers(0, 99),
)
def test_the_nearest_rows_are_those_of_other_folds_with_the_highest_products(n, q, k, block, products, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, (n + 5, 2)).astype(np.float32)
    rows = np.sort(rng.choice(n + 5, n, replace=False))
    row_fold, fold = rng.integers(0, 3, n), rng.integers(0, 3, q)
    queries = rng.integers(-3, 4, (q, 2)).astype(np.float32)
    left_out = rng.random((3, n)) < 0.3 if seed % 2 else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "BLOCK", block)
        patch.setattr(nearest, "PRODUCTS", products)
        found, best = nearest_rows(queries, fold, rows, row_fold, values.__getitem__, k, left_out)
        counts = count_near(queries, fold, rows, row_fold, values.__getitem__, 2.0, left_out)
    for i in range(q):
        cosines = queries[i] @ values[rows].T
        others = row_fold != fold[i]
        allowed = np.flatnonzero(others if left_out is None else others & ~left_out[fold[i]])
        order = allowed[np.argsort(-cosines[allowed], kind="stable")][:k]
        expected = rows[order].tolist() + [-1] * (k - len(order))
        assert found[i].tolist() == expected
        assert best[i, : len(order)].tolist() == cosines[order].tolist()
        assert counts[i] == (cosines[allowed] >= 2).sum()


def test_many_queries_take_no_more_memory_than_few(monkeypatch):
    monkeypatch.setattr(nearest, "PRODUCTS", 1 << 16)
    values = np.random.default_rng(0).normal(size=(4000, 4)).astype(np.float32)
    rows, asked = np.arange(4000), []

    def read(part):
        asked.append(len(part))
        return values[part]

    tracemalloc.start()
    try:
        found, _ = nearest_rows(values, rows, rows, rows, read, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(asked) == 4000
    assert (found[:, 0] != rows).all()
    assert peak < 16 << 20, "all products of 4,000 queries and rows take 64 MB"
