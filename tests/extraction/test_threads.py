from __future__ import annotations

from collections.abc import Iterator

from img2prompt_cache.extraction.threads import BLOCK, map_in_order


def test_results_come_in_order_and_items_are_taken_block_by_block() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(2 * BLOCK + 3):
            taken.append(number)
            yield number

    results = map_in_order(lambda number: number + 1, items(), 4)
    assert next(results) == 1
    assert len(taken) == BLOCK
    assert list(results) == list(range(2, 2 * BLOCK + 4))
    assert list(map_in_order(str, [], 2)) == []
