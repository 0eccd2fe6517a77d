from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from img2prompt_cache.reporting.words import (
    artist_counts,
    bigram_counts,
    modifier_counts,
    phrases_of,
    script_of,
    subject_and_modifiers,
    word_counts,
    words_of,
)


def test_words_are_lower_case_without_numbers():
    assert words_of("A Red fox's den, 1920 4K") == ["a", "red", "fox's", "den", "4k"]


def test_words_are_counted_once_a_prompt_and_stop_words_never():
    assert word_counts(["a fox and a fox", "the fox"]) == {"fox": 2}


def test_bigrams_do_not_cross_commas_or_stop_words():
    assert bigram_counts(["red fox, digital art", "red fox in snow"]) == {"red fox": 2, "digital art": 1}


def test_a_prompt_is_divided_into_subject_and_modifiers():
    assert subject_and_modifiers("a (red fox:1.2), ((oil painting)), 8k.") == (
        "a red fox",
        ["oil painting", "8k"],
    )
    assert subject_and_modifiers(" ,, ") == ("", [])


def test_modifiers_and_artists_are_counted_by_prompts():
    prompts = ["a fox, 8k, 8k, by Greg Rutkowski", "a cat, 8K, in the style of Alphonse Mucha and others"]
    assert modifier_counts(prompts)["8k"] == 2
    assert artist_counts(prompts) == {"Greg Rutkowski": 1, "Alphonse Mucha": 1}


def test_the_script_is_that_of_most_letters():
    assert [script_of(text) for text in ("fox 狐", "狐狸在雪地 x", "лиса", "ثعلب", "123 !", "")] == [
        *("Latin", "CJK", "Cyrillic", "Arabic", "none", "none")
    ]


@given(st.text(st.characters()))
def test_any_text_has_words_phrases_and_a_script(text):
    assert all(word and word == word.lower()[:40] for word in words_of(text))
    assert all(phrase == phrase.strip() for phrase in phrases_of(text))
    assert script_of(text)
    artist_counts([text])
