from __future__ import annotations

from img2prompt_cache.cache.reader import FAILED, OK
from img2prompt_cache.extraction.work import Slice


def test_a_slice_knows_its_length_and_whether_it_is_known() -> None:
    fresh = Slice(0, 8, {"imgId": ["a", "b"]})
    assert len(fresh) == 2
    assert not fresh.known
    assert not fresh.was_good(0)
    cached = Slice(0, 8, {"imgId": ["a", "b"], "sha256": ["1", ""], "status": [OK, FAILED]})
    assert cached.known
    assert [cached.was_good(row) for row in range(2)] == [True, False]
