from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.encoders.prompts import CLEAN_RULES, clean

WORDS = ["boat", "Red", "4k", "Fjörd", "船", "नमस्ते", "é", "1.2", "16:9"]
SYNTAX = [
    ":1.3",
    "::2",
    "::",
    ":",
    "(",
    ")",
    "((",
    "[",
    "}",
    "\\(",
    "--ar",
    "--no",
    "--style",
    "--v",
    "—",
    "-",
    "<lora:",
    "<LyCO:",
    ">",
    "'",
    "_",
    ",",
]
PIECES = st.sampled_from([*WORDS, *SYNTAX, " ", " ", ", ", "\n", "\u0301"])
PROMPTS = st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=40)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFC", text))


@pytest.mark.parametrize("rule", CLEAN_RULES)
@given(prompt=PROMPTS)
def test_cleaning_twice_is_cleaning_once(rule: str, prompt: str) -> None:
    once = clean(prompt, rule)
    assert clean(once, rule) == once


@given(prompt=st.lists(PIECES.filter(lambda piece: piece != "\u0301"), max_size=25).map("".join))
def test_light_leaves_a_subsequence_of_the_words(prompt: str) -> None:
    before = iter(words(prompt))
    assert all(word in before for word in words(clean(prompt, "light")))


@given(prompt=PROMPTS)
def test_seed_keeps_every_letter_and_digit_in_order_and_nothing_else(prompt: str) -> None:
    def letters(text: str) -> str:
        return "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] in "LN")

    cleaned = clean(prompt, "seed")
    assert letters(cleaned) == letters(prompt.lower())
    assert all(c == " " or unicodedata.category(c)[0] in "LMN" for c in cleaned)


@given(prompt=st.text())
def test_none_is_the_identity(prompt: str) -> None:
    assert clean(prompt, "none") is prompt


@pytest.mark.parametrize(
    ("prompt", "light"),
    [
        ("Two red boats,  octane render,\n4K", "Two red boats, octane render, 4K"),
        ("(realistic photo:1.2), ( neon : 1 ), ((best)) {{x}}", "realistic photo, neon, best x"),
        ("[amber heard:emma watson:0.5]", "amber heard:emma watson"),
        ("a boat <lora:sea_v2:0.8>, calm <hypernet:x>", "a boat, calm"),
        ("a dog --ar 16:9 --v 5.2 --no cats, birds --style raw --tile", "a dog"),
        ("a dog —ar 3:2 running", "a dog running"),
        ("a dog —no one else—", "a dog —no one else—"),
        ("hot::2 dog::-1.5", "hot dog"),
        ("at (10:30), ratio (2:1)", "at 10:30, ratio 2:1"),
        ("photo(graph) by cat \\(artist\\)", "photo graph by cat artist"),
        ("--art deco, --fastest, well--ar 2", "--art deco, --fastest, well--ar 2"),
        ("cafe\u0301", "café"),
        ("x² ﬁne", "x² ﬁne"),
        ("-(-tile a", "a"),
    ],
)
def test_light_takes_out_what_only_steers_the_generator(prompt: str, light: str) -> None:
    assert clean(prompt, "light") == light


@pytest.mark.parametrize(
    ("prompt", "seed"),
    [
        ("Two RED boats, Octane Render, 4K!", "two red boats octane render 4k"),
        ("close-up of Rembrandt's_hand", "close up of rembrandt s hand"),
        ("f/1.4, 100mm", "f 1 4 100mm"),
        ("Жук, 船, नमस्ते", "жук 船 नमस्ते"),
        ("!!!", ""),
    ],
)
def test_seed_lowers_and_strips(prompt: str, seed: str) -> None:
    assert clean(prompt, "seed") == seed


@pytest.mark.parametrize(
    "piece", ["(", "\\(", "-(-", "::", "<lora:", "--no ", "--v 5", "--v 5 ", " ,", ":1.1"]
)
def test_long_hostile_prompts_take_linear_time(piece: str) -> None:
    prompt = piece * (200_000 // len(piece)) + ")"
    started = time.perf_counter()
    clean(prompt, "light")
    # Quadratic time would be minutes.
    assert time.perf_counter() - started < 10


def test_an_unknown_rule_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown `clean` rule 'ligth'; did you mean light"):
        clean("x", "ligth")
