"""Parts of a prompt: its subject, the place it ends with, and the modifiers after it."""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple
from unicodedata import category

from img2prompt_cache.models.encoders.prompts import clean
from img2prompt_cache.prediction.compose.words import (
    ADJECTIVE_ENDINGS,
    ADJECTIVES,
    DETERMINERS,
    NEVER_FIRST,
    NEVER_LAST,
    NOUNS_IN_ING,
    PREPOSITIONS,
    VERBS_OF_CLAUSES,
    WITHOUT_CONTENT,
)

MOST_READ = 1000
"""Characters of a prompt that are looked at; people's longest prompts have about as many."""

MOST_CHARACTERS, MOST_WORDS = 100, 14
"""Size of a part; a longer one is a text of its own rather than a phrase."""

_BREAK = re.compile(r"[,;|\n]+|[.!?:]+(?=\s|$)|\s[-–—/]+\s")
_QUOTES = re.compile(r"[\"“”„«»*_`]+")
_STYLE_OF = re.compile(
    r"\s+(?=(?:(?:art |painted |drawn |illustrated |photographed )?by (?!the |an? |its |his |her |their )"
    r"|in the style of )\S)",
    re.IGNORECASE,
)
"""Where an artist's name begins: "a boat by Monet", but not "a boat by the sea"."""

_PUNCTUATION = frozenset("'’-–&.+/%°()")


class Parts(NamedTuple):
    """A prompt in parts, each as its writer spelled it.

    Attributes
    ----------
    subject : str
        What is shown: the first segment, without what follows; empty where the prompt has no readable one.
    action : str
        The participle phrase after it, "holding a red ball", or nothing.
    tail : str
        The prepositional phrase that the first segment ends with, or nothing.
    modifiers : tuple of str
        All other segments, in their order. Unreadable ones are left out.
    """

    subject: str
    action: str
    tail: str
    modifiers: tuple[str, ...]


def split_prompt(prompt: str) -> Parts:
    """Split a prompt at commas and other marks between its parts, and before the name of an artist.

    Weights, flags, brackets and quotation marks go first, as the cleaning rule ``light`` does it. A prompt
    without a mark, such as a caption, has a subject, and often an action or a tail: "A grey dog", "chasing a
    ball" and "in the sand".

    Parameters
    ----------
    prompt : str
        Only the first `MOST_READ` characters count.
    """
    text = _QUOTES.sub(" ", clean(prompt[:MOST_READ], "light"))
    segments = [
        part for segment in _BREAK.split(text) for part in _STYLE_OF.split(_trimmed(segment)) if part.strip()
    ]
    if not segments:
        return Parts("", "", "", ())
    while len(segments) > 1 and lacks_noun(segments[0]):
        segments[:2] = [" ".join(segments[:2])]
    rest, tail = split_tail(segments[0])
    subject, action = split_action(rest)
    subject, action, tail = (part if is_readable(part) else "" for part in (subject, action, tail))
    return Parts(subject, action, tail, tuple(segment for segment in segments[1:] if is_readable(segment)))


def split_tail(segment: str) -> tuple[str, str]:
    """Split off the prepositional phrase that a segment ends with, if it reads as one of two to six words."""
    words = segment.split()
    found = [at for at, word in enumerate(words) if word.lower() in PREPOSITIONS]
    if not found:
        return segment, ""
    start = found[-1]
    tail = words[start:]
    # A determiner elsewhere than at the beginning or after "of" follows a verb: "on his head rides a bike".
    verb = any(
        word.lower() in DETERMINERS and before.lower() not in {*PREPOSITIONS, "of"}
        for before, word in itertools.pairwise(tail)
    )
    sentence = verb or any(word.lower() in VERBS_OF_CLAUSES or is_participle(word) for word in tail)
    joined = start > 0 and words[start - 1].lower() in NEVER_LAST | PREPOSITIONS
    if start == 0 or joined or sentence or not 2 <= len(tail) <= 6:
        return segment, ""
    return " ".join(words[:start]), " ".join(tail)


def split_action(segment: str) -> tuple[str, str]:
    """Split off the participle phrase that a segment ends with, if it reads as one of two to seven words."""
    words = segment.split()
    for start in range(1, len(words)):
        before = words[start - 1].lower()
        adjective = before in NEVER_LAST | PREPOSITIONS or lacks_noun(" ".join(words[:start]))
        if not is_participle(words[start]) or adjective or before.endswith("ly"):
            continue
        action = words[start:]
        if 2 <= len(action) <= 7 and not any(each.lower() in VERBS_OF_CLAUSES for each in action):
            return " ".join(words[:start]), " ".join(action)
        break
    return segment, ""


def lacks_noun(subject: str) -> bool:
    """Say whether there is an article and no noun yet: of "a majestic, horrifying owl", the first half."""
    words = subject.lower().split()
    last = words[-1]
    return words[0] in DETERMINERS and (last in ADJECTIVES or last.endswith(ADJECTIVE_ENDINGS))


def is_participle(word: str) -> bool:
    """Say whether a word looks like a present participle, and is no noun that ends as one does."""
    return len(word) > 4 and word.lower().endswith("ing") and word.lower() not in NOUNS_IN_ING


def is_readable(text: str, most_words: int = MOST_WORDS) -> bool:
    """Say whether a part reads as a phrase: short, of words, and neither begun nor ended in the middle."""
    words = text.split()
    if not 1 <= len(words) <= most_words or len(text) > MOST_CHARACTERS:
        return False
    if words[0].lower() in NEVER_FIRST or words[-1].lower() in NEVER_LAST:
        return False
    kinds = [category(character)[0] for character in text]
    if not all(
        kind in "LMN" or character == " " or character in _PUNCTUATION
        for kind, character in zip(kinds, text, strict=True)
    ):
        return False
    letters = kinds.count("L") + kinds.count("M")
    enough = letters >= 1 and letters >= 0.5 * (len(text) - text.count(" "))  # "4k", but not "1234"
    return enough and len(text) > 1 and max(map(len, words)) <= 30


def as_second(subject: str) -> str:
    """Give a subject as it stands after "and": a short one without a clause, with an article or a number."""
    first, *rest = subject.split()
    clause = any(word.lower() in VERBS_OF_CLAUSES for word in rest)
    if first.lower() not in DETERMINERS or not 1 <= len(rest) <= 4 or clause:
        return ""
    return " ".join([first.lower(), *rest])


def key(text: str) -> str:
    """Spell a phrase so that those that differ in case, spaces or punctuation only are equal."""
    return "".join(character for character in text.casefold() if category(character)[0] in "LMN")


def content_words(text: str) -> frozenset[str]:
    """Give the words that carry a phrase's meaning, in the singular where that is a plain s."""
    found = (key(word) for word in re.split(r"[\s/-]+", text))
    return frozenset(
        word.removesuffix("s") if len(word) > 3 else word
        for word in found
        if word and word not in WITHOUT_CONTENT
    )


def _trimmed(segment: str) -> str:
    text = " ".join(segment.split()).strip(" .-–&+/%")
    # An apostrophe at either end belongs to the text where it has another one: 'Hello World'.
    return text.strip("'") if text.count("'") % 2 else text
