from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.models.encoders.batches import batches, blocks


@given(st.lists(st.integers(0, 50)), st.integers(1, 200))
def test_batches_hold_every_text_once_and_no_more_than_fits(lengths: list[int], budget: int) -> None:
    found = [rows.tolist() for rows in batches(np.array(lengths, np.int64), budget)]
    assert sorted(row for rows in found for row in rows) == [*range(len(lengths))]
    longest = [max(lengths[row] for row in rows) for rows in found]
    assert all(
        len(rows) == 1 or most * len(rows) <= budget for rows, most in zip(found, longest, strict=True)
    )
    for rows, most, after in zip(found, longest, longest[1:], strict=False):
        assert max(most, 1) * (len(rows) + 1) > budget  # one text more would not have fit
        assert min(lengths[row] for row in rows) >= after


def test_texts_of_equal_length_stay_in_their_order() -> None:
    assert [rows.tolist() for rows in batches(np.array([3, 5, 3, 3]), 6)] == [[1], [0, 2], [3]]


def test_a_block_is_bounded_by_characters() -> None:
    texts = ["boat", "a" * 100, "", "sea"]
    assert [rows.tolist() for rows in blocks(texts, 8)] == [[1], [0, 3], [2]]
    assert [rows.tolist() for rows in blocks([], 8)] == []
