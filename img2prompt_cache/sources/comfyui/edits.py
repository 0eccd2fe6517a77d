"""What nodes do to texts: join, replace, trim; every result is bounded before it is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

LONGEST_TEXT = 100_000
"""Characters of a text that a node makes; longer ones are not made."""
MOST_TEXTS = 64
"""Texts that are joined; each is compared with all others."""
LONGEST_DELIMITER = 16
"""Characters between texts; a long one repeated would make gigabytes of a small graph."""

_SPACES = re.compile(r"\s{2,}")
_COMMAS = re.compile(r",{2,}")
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r"}
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")
_CHOICE = re.compile(r"\{[^{}|]*\|[^{}]*\}|__[^\s_][^\s]{0,80}?__")
_KEYFRAME = re.compile(r'"\s*\d+\s*"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)


def join(parts: Sequence[str], delimiter: object = " ") -> str:
    """Join texts, empty ones left out; a delimiter that is none, or too long, is a space."""
    between = delimiter if isinstance(delimiter, str) and len(delimiter) <= LONGEST_DELIMITER else " "
    between = _ESCAPES.get(between, between)
    kept: list[str] = []
    length = 0
    for part in parts:
        length += len(part) + len(between)
        if length > LONGEST_TEXT:
            break
        if part:
            kept.append(part)
    return between.join(kept)


def replace(text: str, old: str, new: str) -> str:
    """Replace every occurrence; unchanged if the result would be too long, or nothing is to be found."""
    if not old:
        return text
    count = text.count(old)
    return text.replace(old, new) if len(text) + count * (len(new) - len(old)) <= LONGEST_TEXT else text


def replace_pattern(text: str, pattern: str, new: str) -> str | None:
    """Replace what a pattern matches; None for a pattern that is more than a text.

    A stranger's pattern is not run: it may take for ever.
    """
    return None if _SPECIAL.search(pattern) or "\\" in new else replace(text, pattern, new)


def tidied(text: str) -> str:
    """Leave one space and one comma where there are several, and none at the ends."""
    return _COMMAS.sub(",", _SPACES.sub(" ", text).replace(" ,", ",")).strip()


def is_template(text: str) -> bool:
    """Tell whether a text leaves a choice open: ``{red|blue}`` or ``__colour__``."""
    return _CHOICE.search(text) is not None


def may_come_from(text: str, template: str) -> bool:
    """Tell whether a text holds what a template leaves no choice about, in its order."""
    at = 0
    for part in _CHOICE.split(template):
        found = text.find(part.strip(), at)
        if found < 0:
            return False
        at = found + len(part.strip())
    return True


def has_lines(text: str) -> bool:
    """Tell whether a text has several lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines()) > 1


def first_keyframe(text: str) -> str:
    """Give the positive text of the first keyframe of a schedule, or the text if it is none."""
    frame = _KEYFRAME.search(text)
    prompt = frame[1].replace('\\"', '"') if frame else text
    return prompt.partition("--neg")[0].strip()


def together(texts: list[str]) -> str:
    """Join texts that were encoded together with a comma; one that is part of another is left out."""
    stripped = list(dict.fromkeys(text.strip() for text in texts if text.strip()))[:MOST_TEXTS]
    kept = [text for text in stripped if not any(text in other and text != other for other in stripped)]
    joined = ""
    for text in kept:
        joined += (" " if joined.endswith(",") else ", ") * bool(joined) + text
    return joined


def changed(kind: str, inputs: Mapping[str, object], text: str | None) -> str | None:
    """Do what core's nodes for strings do to the one text they take."""
    if not text:
        return text
    mode = str(inputs.get("mode", "")).lower()
    if kind == "StringTrim":
        return text.lstrip() if mode == "left" else text.rstrip() if mode == "right" else text.strip()
    if kind == "CaseConverter":
        changes = {
            "uppercase": text.upper,
            "lowercase": text.lower,
            "capitalize": text.capitalize,
            "title case": text.title,
        }
        return changes.get(mode, str)() if mode in changes else text
    if kind == "StringSubstring":
        start, end = inputs.get("start"), inputs.get("end")
        if isinstance(start, int) and isinstance(end, int):
            return text[start:end]
    return text
