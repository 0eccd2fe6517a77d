"""Words of prompts: which are frequent, how prompts end, and which scripts they are written in."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

LONGEST = 4000
"""Characters of a prompt that are looked at."""

LONGEST_WORD = 40

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_BOUNDARY = re.compile(r"[,;|\n]+")
_EMPHASIS = re.compile(r"[(){}\[\]<>]|:[\d.]+\b")
_ARTIST = re.compile(r"\b(?:by|(?:in\s+the\s+)?style\s+of)\s+((?:[A-Z][\w.'’-]*\s+){1,3}[A-Z][\w'’-]+)")

STOP_WORDS = frozenset(
    """
    a about above across after all along also am an and another any are around as at be been before
    behind being below between both but by can could did do does down each for from had has have he her
    here his how i if in inside into is it its just like many more most my near no not of off on one
    only or other our out over own she so some such than that the their them then there these they this
    those through to too toward towards under until up upon very was we were what when where which while
    who will with within without would you your
    """.split()  # noqa: SIM905
)
"""Frequent English words that say nothing of a picture."""


def words_of(prompt: str) -> list[str]:
    """Give the words of a prompt in lower case, in their order; those that are only digits are left out."""
    found = _WORD.findall(prompt[:LONGEST].lower())
    return [word[:LONGEST_WORD] for word in found if not word.isdecimal()]


def content_words(prompt: str) -> list[str]:
    """Give the words of a prompt without `STOP_WORDS`."""
    return [word for word in words_of(prompt) if word not in STOP_WORDS]


def phrases_of(prompt: str) -> list[str]:
    """Divide a prompt at its commas; weights and brackets of generators are removed.

    The first phrase is, by custom, the subject; the others are its modifiers.
    """
    text = _EMPHASIS.sub(" ", prompt[:LONGEST])
    phrases = (" ".join(phrase.split()).strip(" .") for phrase in _BOUNDARY.split(text))
    return [phrase for phrase in phrases if phrase]


def subject_and_modifiers(prompt: str) -> tuple[str, list[str]]:
    """Divide a prompt into its subject and its modifiers; see `phrases_of`."""
    phrases = phrases_of(prompt)
    return (phrases[0], phrases[1:]) if phrases else ("", [])


def word_counts(prompts: Iterable[str]) -> Counter[str]:
    """Count in how many prompts each word occurs, `STOP_WORDS` left out."""
    found: Counter[str] = Counter()
    for prompt in prompts:
        found.update({*content_words(prompt)})
    return found


def bigram_counts(prompts: Iterable[str]) -> Counter[str]:
    """Count in how many prompts two words stand side by side, neither a stop word, and no comma between."""
    found: Counter[str] = Counter()
    for prompt in prompts:
        inside: set[str] = set()
        for phrase in phrases_of(prompt):
            words = words_of(phrase)
            inside.update(
                f"{one} {other}"
                for one, other in pairwise(words)
                if one not in STOP_WORDS and other not in STOP_WORDS
            )
        found.update(inside)
    return found


def modifier_counts(prompts: Iterable[str]) -> Counter[str]:
    """Count in how many prompts a phrase follows the first comma: styles, qualities, media."""
    found: Counter[str] = Counter()
    for prompt in prompts:
        _, modifiers = subject_and_modifiers(prompt.lower())
        found.update({phrase for phrase in modifiers if len(phrase) <= LONGEST_WORD})
    return found


def artist_counts(prompts: Iterable[str]) -> Counter[str]:
    """Count in how many prompts a name with capitals follows "by" or "style of"."""
    found: Counter[str] = Counter()
    for prompt in prompts:
        found.update({" ".join(name.split())[:60] for name in _ARTIST.findall(prompt[:LONGEST])})
    return found


def script_of(text: str) -> str:
    """Name the script of most letters of a text: ``"Latin"``, ``"CJK"``, …; ``"none"`` without letters."""
    counts = Counter(_script(character) for character in text[:LONGEST] if character.isalpha())
    return counts.most_common(1)[0][0] if counts else "none"


def script_counts(prompts: Sequence[str]) -> Counter[str]:
    """Count the prompts of each script."""
    return Counter(map(script_of, prompts))


def words_found(prompt: str, nearest: list[str]) -> tuple[list[str], list[str], list[str], list[str]]:
    """Divide the words of a prompt into subject and modifiers, and these into found and missed.

    Returns
    -------
    tuple of list of str
        Words of the subject that are in one of the nearest prompts, those that are not, and the same of the
        modifiers. A plural in s is the same word.
    """
    there = {_stem(word) for each in nearest for word in content_words(each)}
    subject, modifiers = subject_and_modifiers(prompt)
    first = list(dict.fromkeys(content_words(subject)))
    later = [word for word in dict.fromkeys(content_words(", ".join(modifiers))) if word not in first]
    return (
        [word for word in first if _stem(word) in there],
        [word for word in first if _stem(word) not in there],
        [word for word in later if _stem(word) in there],
        [word for word in later if _stem(word) not in there],
    )


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """Name the script of a letter by the first word of its Unicode name."""
    first = unicodedata.name(character, "OTHER").split()[0]
    return first if first == "CJK" else first.capitalize()
