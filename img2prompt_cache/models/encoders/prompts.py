"""Prompt cleaning: named rules, applied before a prompt is encoded.

The default is ``none``, because the score is computed on the raw prompt.
"""

from __future__ import annotations

import re
import unicodedata

from img2prompt_cache.errors import unknown

CLEAN_RULES = ("none", "light", "seed")

CHARACTERS_PER_TOKEN = 64
"""Characters of text for each token of an encoder's window: English has 4 to 5, the longest words 30."""

MOST_TOKENS = 8192
"""Tokens of a window beyond which a model's own number is not believed."""

_NETWORK = re.compile(r"<(?:lora|lyco|lycoris|hypernet):[^<>]*>", re.IGNORECASE)
_WEIGHT = re.compile(r"(?:(?<=[^\d\s:]) ?: ?\d| ?: ?\d*\.\d+)(?= ?[)\]}])")
_BRACKET_INSIDE_WORD = re.compile(r"(?<=\w)(?:\\?[()\[\]{}])+(?=\w)")
_BRACKET = re.compile(r"\\?[()\[\]{}]")
_PART_WEIGHT = re.compile(r"::(?:[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?!\w))?")

_NUMBER_FLAGS = (
    "ar|aspect|chaos|c|cw|exp|h|iw|niji|q|quality|repeat|s|sameseed|seed|stop|stylize|sv|sw|v|version|w|weird"
)
_WORD_FLAGS = "cref|oref|p|personalize|profile|sref|style"
_BARE_FLAGS = (
    "beta|creative|draft|fast|hd|raw|relax|stealth|test|testp|tile|turbo|upanime|upbeta|uplight|video"
)
_NUMBER = r" \d[\d.:/x]*(?![^ ,])"
_FLAG = re.compile(
    r"(?<!\S)(?:--(?:"
    rf"(?:{_NUMBER_FLAGS})(?:{_NUMBER})?"
    rf"|(?:{_WORD_FLAGS})(?: (?!--|—)[^ ,]+)?"
    rf"|no(?: .*?(?= (?:--|—)|$))?"
    rf"|{_BARE_FLAGS}"
    # Phones make a dash of two hyphens; before a mere word it is more likely a dash.
    rf")|—(?:{_NUMBER_FLAGS}){_NUMBER})(?![^ ,])",
    re.IGNORECASE,
)
_COMMAS = re.compile(r"(?: ?,)+")


def longest_text(window: object) -> int:
    """Choose how many characters of a text are tokenized for a window of so many tokens."""
    tokens = window if isinstance(window, int) and window > 0 else MOST_TOKENS
    return CHARACTERS_PER_TOKEN * min(tokens, MOST_TOKENS)


def clean(prompt: str, rule: str) -> str:
    """Clean a prompt. Cleaning twice changes nothing more, and no rule adds a word.

    ``none``
        The prompt as it is.
    ``light``
        Removes what only controls a generator: ``<lora:…>`` and the like, Midjourney flags with their values
        (``--ar 16:9``, ``--no`` with what it excludes), part weights (``::2``), weights before a closing
        bracket (``(boat:1.2)``) and every round, square or curly bracket. Unicode is composed (NFC), white
        space becomes single spaces, commas left without words between them become one. Letters keep their
        case, other punctuation stays.
    ``seed``
        Lower case; everything but letters, digits and white space becomes a space, so that "4k" and "octane
        render" stay and "close-up" does not become another word; then NFC and single spaces.

    Parameters
    ----------
    prompt : str
    rule : str
        One of `CLEAN_RULES`.

    Raises
    ------
    UsageError
        If there is no such rule.
    """
    if rule not in CLEAN_RULES:
        raise unknown("`clean` rule", rule, CLEAN_RULES, parameter="clean")
    if rule == "none":
        return prompt
    step = _light if rule == "light" else _seed
    # Removing one thing can join the halves of another: "-(-tile".
    while (cleaned := step(prompt)) != prompt:
        prompt = cleaned
    return prompt


def _light(text: str) -> str:
    text = _spaced(unicodedata.normalize("NFC", text))
    text = _NETWORK.sub(" ", text)
    text = _WEIGHT.sub("", text)
    text = _BRACKET_INSIDE_WORD.sub(" ", text)
    text = _BRACKET.sub("", text)
    text = _spaced(_PART_WEIGHT.sub(" ", text))
    return _COMMAS.sub(",", _spaced(_FLAG.sub(" ", text))).strip(" ,")


def _seed(text: str) -> str:
    lowered = unicodedata.normalize("NFC", text.lower())
    # Marks belong to letters: vowel signs in Hindi, accents that have no composed form.
    return _spaced("".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in lowered))


def _spaced(text: str) -> str:
    return " ".join(text.split())
