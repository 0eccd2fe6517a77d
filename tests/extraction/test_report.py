from __future__ import annotations

import time

from img2prompt_cache.extraction.report import Clock


def test_seconds_add_up_stage_by_stage() -> None:
    clock, other = Clock(), Clock()
    with clock.timed("read"):
        time.sleep(0.01)
    assert clock.seconds["read"] >= 0.01
    before = clock.seconds["read"]
    other.charge("read", 1.5)
    other.charge("decode", 0.5)
    clock.add(other)
    assert clock.seconds == {"read": before + 1.5, "decode": 0.5}
    assert other.seconds == {"read": 1.5, "decode": 0.5}
