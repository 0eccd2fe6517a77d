"""A hobbyist's day: pictures without prompts, then with the help of others that have some."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_pictures_are_searched_sorted_out_captioned_and_watched(begin):
    day = begin("Your own pictures")
    before = {path: path.read_bytes() for path in day.folder.rglob("*.*")}
    day.follow()
    assert {path: path.read_bytes() for path in before} == before
    assert {path.stem for path in (day.folder / "new").glob("*.caption")} == set("abcdef")
    for name in ("seen", "known"):
        lines = (day.folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert sorted(json.loads(line)["file"] for line in lines) == [f"{stem}.png" for stem in "abcdef"]
