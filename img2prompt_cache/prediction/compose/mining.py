"""Mining: the phrases that prompts are made of, how often people write them, and where."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from img2prompt_cache.prediction.compose.parts import as_second, is_participle, is_readable, key, split_prompt

SUBJECT, ACTION, TAIL, SECOND, MODIFIER = range(5)
"""Kinds of phrases, in the order in which a prompt has them."""

MOST_PROMPTS = 100_000
"""Prompts that are looked at, 0.12 ms each; of more, every so many."""

MOST_PHRASES = {SUBJECT: 6000, ACTION: 1500, TAIL: 1500, MODIFIER: 6000}
"""Phrases of a kind that are kept and encoded: about 1 ms each on one core in bfloat16, 5 ms in float32."""

MOST_MODIFIERS = 8
MODIFIER_WORDS = 6


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase as people write it.

    Attributes
    ----------
    text : str
    kind : int
        `SUBJECT`, `ACTION`, `TAIL`, `SECOND` (another subject, after "and") or `MODIFIER`.
    place : float
        Mean place among the modifiers of a prompt, from 0, the first, to 1, the last.
    row : int
        In the table of embeddings; −1 for one that is not there.
    """

    text: str
    kind: int
    place: float = 0.0
    row: int = -1

    @property
    def words(self) -> int:
        """Number of words."""
        return self.text.count(" ") + 1

    @property
    def acts(self) -> bool:
        """Whether there is a participle in it."""
        return any(map(is_participle, self.text.split()))


@dataclass(frozen=True, slots=True)
class Mined:
    """Phrases of prompts, and how those who wrote them put them together.

    Attributes
    ----------
    phrases : list of Phrase
        By kind; within a kind the most frequent ones first.
    most_modifiers : int
        As many as nine of ten prompts have at most; 0 where people write captions.
    ends_with_stop : bool
        Whether most prompts end with a full stop.
    """

    phrases: list[Phrase]
    most_modifiers: int
    ends_with_stop: bool


def mine(prompts: Sequence[str], *more: Sequence[str]) -> Mined:
    """Find phrases.

    A modifier is kept if two prompts have it, spelled as most of them do. Of more subjects than
    `MOST_PHRASES`, every so many are kept, since each occurs about once.

    Parameters
    ----------
    prompts : sequence of str
        Those that a head was fitted on: they decide how many modifiers a prompt has, and how it ends.
    *more : sequence of str
        Other prompts, for their phrases only.
    """
    subjects: dict[str, str] = {}
    actions, tails, modifiers = _Counted(), _Counted(), _Counted()
    counts = []
    read = _spread(prompts, MOST_PROMPTS)
    for number, prompt in enumerate(
        [*read, *(each for others in more for each in _spread(others, MOST_PROMPTS))]
    ):
        parts = split_prompt(prompt)
        if number < len(read):
            counts.append(len(parts.modifiers))
        if parts.subject:
            subjects.setdefault(key(parts.subject), parts.subject)
        if parts.action:
            actions.add(parts.action, 0.0)
        if parts.tail:
            tails.add(parts.tail, 0.0)
        last = max(len(parts.modifiers) - 1, 1)
        for place, modifier in enumerate(parts.modifiers):
            if is_readable(modifier, MODIFIER_WORDS):
                modifiers.add(modifier, place / last)
    shown = [text for name, text in subjects.items() if modifiers.count(name) < 2] or [*subjects.values()]
    found = [Phrase(text, SUBJECT) for text in _spread(shown, MOST_PHRASES[SUBJECT])]
    found += [Phrase(text, ACTION) for text, _ in actions.most(MOST_PHRASES[ACTION], 1)]
    found += [Phrase(text, TAIL) for text, _ in tails.most(MOST_PHRASES[TAIL], 1)]
    found += [
        Phrase(text, SECOND) for text in map(as_second, [p.text for p in found if p.kind == SUBJECT]) if text
    ]
    found += [Phrase(text, MODIFIER, place) for text, place in modifiers.most(MOST_PHRASES[MODIFIER], 2)]
    return Mined(
        [Phrase(each.text, each.kind, each.place, row) for row, each in enumerate(found)],
        min(math.ceil(np.percentile(counts, 90)), MOST_MODIFIERS) if counts else MOST_MODIFIERS,
        bool(read) and 2 * sum(prompt.rstrip().endswith(".") for prompt in read) > len(read),
    )


class _Counted:
    """Phrases with the number of prompts that have them, their spellings and their places."""

    def __init__(self) -> None:
        self._spellings: dict[str, Counter[str]] = {}
        self._places: dict[str, float] = {}

    def add(self, text: str, place: float) -> None:
        name = key(text)
        self._spellings.setdefault(name, Counter())[text] += 1
        self._places[name] = self._places.get(name, 0.0) + place

    def count(self, name: str) -> int:
        return self._spellings[name].total() if name in self._spellings else 0

    def most(self, number: int, least: int) -> list[tuple[str, float]]:
        """Give the most frequent phrases, in their most frequent spelling, with their mean places."""
        ranked = sorted(self._spellings, key=lambda name: (-self.count(name), name))
        return [
            (self._spellings[name].most_common(1)[0][0], self._places[name] / self.count(name))
            for name in ranked[:number]
            if self.count(name) >= least
        ]


def _spread(items: Sequence[str], most: int) -> list[str]:
    """Give at most so many items, evenly spaced."""
    return [*items[:: max(math.ceil(len(items) / most), 1)]]
