from __future__ import annotations

import pytest

from img2prompt_cache.prediction.compose import mining
from img2prompt_cache.prediction.compose.mining import ACTION, MODIFIER, SECOND, SUBJECT, TAIL, mine

PROMPTS = [
    "A fox in the snow, oil painting, Highly Detailed",
    "A boat, oil painting, highly detailed",
    "a bird at night, highly detailed, by Monet, rare words",
    "A fox, soft light, by Monet",
]


def texts(mined, kind):
    return [phrase.text for phrase in mined.phrases if phrase.kind == kind]


def test_phrases_of_prompts():
    mined = mine(PROMPTS)
    assert texts(mined, SUBJECT) == ["A fox", "A boat", "a bird"]
    assert texts(mined, SECOND) == ["a fox", "a boat", "a bird"]
    assert texts(mined, TAIL) == ["at night", "in the snow"]
    assert texts(mined, MODIFIER) == ["highly detailed", "by Monet", "oil painting"]
    assert [phrase.row for phrase in mined.phrases] == [*range(len(mined.phrases))]
    assert mined.most_modifiers == 3
    assert not mined.ends_with_stop


def test_modifiers_know_the_place_that_people_give_them():
    places = {phrase.text: phrase.place for phrase in mine(PROMPTS).phrases if phrase.kind == MODIFIER}
    assert places == {"oil painting": 0.0, "highly detailed": pytest.approx(2 / 3), "by Monet": 0.75}


def test_captions_have_no_modifiers_and_end_with_a_stop():
    captions = [
        "A dog runs in the grass.",
        "A cat eating a fish.",
        "Two boys play on a beach.",
        "A man is on a bike.",
    ]
    mined = mine(captions, PROMPTS)
    assert mined.most_modifiers == 0
    assert mined.ends_with_stop
    assert texts(mined, ACTION) == ["eating a fish"]
    assert {"A dog runs", "A cat", "A boat"} <= {*texts(mined, SUBJECT)}


def test_what_is_used_as_a_modifier_is_no_subject():
    mined = mine(["manga, a fox", "a boat, manga", "a bird, manga"])
    assert texts(mined, SUBJECT) == ["a boat", "a bird"]


def test_tables_are_bounded(monkeypatch):
    monkeypatch.setattr(mining, "MOST_PROMPTS", 50)
    monkeypatch.setattr(mining, "MOST_PHRASES", {SUBJECT: 5, ACTION: 2, TAIL: 4, MODIFIER: 3})
    words = [f"{a}{b}ung" for a in "bcdfgh" for b in "aeiou"]
    prompts = [f"a {one} thing in the {one}, {words[0]} light, {words[1]} art" for one in words]
    mined = mine(prompts * 10)
    assert [len(texts(mined, kind)) for kind in (SUBJECT, TAIL, SECOND, MODIFIER)] == [5, 4, 5, 2]


def test_nothing_is_found_in_what_is_no_language():
    assert mine(["\x00\x01", "====", "1 2 3", "", "<b></b>"]).phrases == []
    assert mine([]).phrases == []
