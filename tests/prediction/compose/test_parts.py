from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.prediction.compose.parts import (
    MOST_CHARACTERS,
    as_second,
    content_words,
    is_readable,
    split_action,
    split_prompt,
    split_tail,
)


@pytest.mark.parametrize(
    ("prompt", "subject", "tail", "modifiers"),
    [
        ("A red boat, oil on canvas, 8k.", "A red boat", "", ("oil on canvas", "8k")),
        ("A grey dog plays in the sand at the ocean.", "A grey dog plays in the sand", "at the ocean", ()),
        ("a boat by the sea by Monet, calm", "a boat by the sea", "", ("by Monet", "calm")),
        ("a fox in the style of Klimt", "a fox", "", ("in the style of Klimt",)),
        ("(a cat:1.2), <lora:x:1>, [[soft light]] --ar 2:3", "a cat", "", ("soft light",)),
        ('a sign "open" | neon; night', "a sign open", "", ("neon", "night")),
        ("A boy looks up. He has a hat!", "A boy looks up", "", ()),
        ("a sign that says 'open late'", "a sign that says 'open late'", "", ()),
        ("'a cat, 8k lens", "a cat", "", ("8k lens",)),
        ("a majestic, horrifying owl in a tree, oil", "a majestic horrifying owl", "in a tree", ("oil",)),
        ("a beautiful, old, house", "a beautiful old house", "", ()),
        ("a beautiful", "a beautiful", "", ()),
        ("a wolf - a forest", "a wolf", "", ("a forest",)),
        ("red, and a hat, of glass, lit from", "red", "", ()),
        ("", "", "", ()),
        (" ,. ; ", "", "", ()),
        ("1234 5678 90", "", "", ()),
    ],
)
def test_prompts_in_their_parts(prompt, subject, tail, modifiers):
    assert split_prompt(prompt) == (subject, "", tail, modifiers)


@pytest.mark.parametrize(
    ("segment", "tail"),
    [
        ("a man rides a bike down a street in a yellow hat", "in a yellow hat"),
        ("a hat on his head rides a bike", ""),  # a verb after the place
        ("two dogs in a field of the king", "in a field of the king"),
        ("a boy on each side overlooking mountains", ""),
        ("in the beginning", ""),
        ("a girl looks out of under the bed", ""),  # two prepositions in a row
        ("a house on the hill that is red", ""),
        ("a house on the", "on the"),
        ("a house", ""),
    ],
)
def test_a_tail_is_the_last_phrase_with_a_preposition(segment, tail):
    assert split_tail(segment)[1] == tail
    assert " ".join(filter(None, split_tail(segment))) == segment


@pytest.mark.parametrize(
    ("segment", "action"),
    [
        ("A man drilling a hole", "drilling a hole"),
        ("Two dogs of one breed looking at each other", "looking at each other"),
        ("A dog is running through grass", ""),  # "is running" is a verb
        ("A stunning painting of a building", ""),
        ("a sitting cat", ""),
        ("a man running", ""),  # reads as well without being split
        ("a man wearing a hat which is red", ""),
        ("a man wearing a hat with a feather of a very large bird", ""),
    ],
)
def test_an_action_begins_with_a_participle(segment, action):
    assert split_action(segment)[1] == action
    assert " ".join(filter(None, split_action(segment))) == segment


def test_a_caption_in_its_parts():
    assert split_prompt("A boy chasing a ball in the snow.") == ("A boy", "chasing a ball", "in the snow", ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "and a hat",
        "a hat of",
        "x" * 31,
        "a " * 20,
        "see <b>this</b>",
        "mail me@there",
        "\x1b[31mred",
        "a\u202eb",
        "=1+1",
        "12 34",
        "x",
        "f1234",
        "a\nb",
    ],
)
def test_what_is_no_phrase(text):
    assert not is_readable(text)


@pytest.mark.parametrize("text", ["8k", "8k resolution", "a fox", "peintre à l’huile", "赤い 車", "don't"])
def test_what_is_a_phrase(text):
    assert is_readable(text)


@given(st.text(max_size=300))
def test_parts_of_any_text_are_short_and_printable(prompt):
    parts = split_prompt(prompt)
    for part in (*parts[:3], *parts.modifiers):
        assert len(part) <= MOST_CHARACTERS
        assert all(unicodedata.category(character)[0] != "C" for character in part)
        assert part == " ".join(part.split())


def test_a_very_long_prompt_is_read_at_its_beginning_only():
    assert split_prompt("a boat, " + "x," * 5_000_000).subject == "a boat"


def test_a_second_subject_begins_with_a_determiner_in_lower_case():
    assert as_second("A red boat") == "a red boat"
    for text in (
        "Boats",
        "A",
        "Red boat",
        "a man who rows",
        "a dog is running",
        "a very long red boat of wood",
    ):
        assert as_second(text) == "", text


def test_content_words_leave_out_what_says_nothing():
    assert content_words("the two Boats of a highly detailed sea") == {"two", "boat", "detailed", "sea"}
