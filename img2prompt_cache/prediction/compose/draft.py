"""Drafts: a subject with some phrases after it, and the text that they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from img2prompt_cache.prediction.compose.mining import ACTION, MODIFIER, SECOND, SUBJECT, TAIL, Phrase
from img2prompt_cache.prediction.compose.parts import content_words, key, split_prompt

_BEFORE = {SUBJECT: "", ACTION: " ", TAIL: " ", SECOND: " and ", MODIFIER: ", "}


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt in the making: phrases in the order in which they are written.

    The subject stands first, then what it does, then its tails, then what else is shown, then modifiers by
    the places that people give them.
    """

    phrases: tuple[Phrase, ...]

    @classmethod
    def of(cls, phrases: Iterable[Phrase]) -> Draft:
        """Put phrases into their order; those of one kind and place stay as they came."""
        return cls(tuple(sorted(phrases, key=lambda phrase: (phrase.kind, phrase.place))))

    @property
    def text(self) -> str:
        """The prompt."""
        return "".join(_BEFORE[phrase.kind] + phrase.text for phrase in self.phrases)

    @property
    def words(self) -> int:
        """Number of words."""
        return sum(phrase.words for phrase in self.phrases)

    def count(self, kind: int) -> int:
        """Count the phrases of a kind."""
        return sum(phrase.kind == kind for phrase in self.phrases)

    def with_phrase(self, phrase: Phrase) -> Draft:
        """Add a phrase."""
        return Draft.of((*self.phrases, phrase))

    def without(self, phrase: Phrase) -> Draft:
        """Leave a phrase out."""
        return Draft(tuple(each for each in self.phrases if each is not phrase))

    def takes(self, phrase: Phrase) -> bool:
        """Say whether a phrase can be added: it repeats nothing, and the sentence stays one.

        Two places begin with different prepositions, and there is one participle at most: neither "in a field
        in a forest" nor "a boy standing riding a horse".
        """
        if phrase.kind == TAIL and any(
            each.kind == TAIL and _first(each.text) == _first(phrase.text) for each in self.phrases
        ):
            return False
        kinds = {each.kind for each in self.phrases}
        if (phrase.kind == ACTION and any(each.kind == SUBJECT and each.acts for each in self.phrases)) or (
            phrase.kind == SUBJECT and ACTION in kinds and phrase.acts
        ):
            return False
        return not self.repeats(phrase.text)

    def repeats(self, text: str) -> bool:
        """Say whether a phrase says nothing that is not there: the same words, or some of them."""
        words = content_words(text)
        there = frozenset[str]().union(*(content_words(phrase.text) for phrase in self.phrases))
        return words <= there or any(key(phrase.text) == key(text) for phrase in self.phrases)


def draft_of(prompt: str, known: dict[tuple[int, str], Phrase]) -> Draft | None:
    """Make a draft of a whole prompt, without what it repeats; None where it has no readable subject.

    Parameters
    ----------
    prompt : str
    known : dict of (kind, key) to Phrase
        Phrases whose embeddings are known.
    """
    parts = split_prompt(prompt)
    if not parts.subject:
        return None
    first = ((parts.subject, SUBJECT), (parts.action, ACTION), (parts.tail, TAIL))
    found = [Phrase(text, kind) for text, kind in first if text]
    last = max(len(parts.modifiers) - 1, 1)
    found += [Phrase(text, MODIFIER, place / last) for place, text in enumerate(parts.modifiers)]
    draft = Draft(())
    for phrase in found:
        row = known.get((phrase.kind, key(phrase.text)))
        if phrase.kind != MODIFIER or not draft.repeats(phrase.text):
            draft = draft.with_phrase(Phrase(phrase.text, phrase.kind, phrase.place, row.row if row else -1))
    return draft


def _first(text: str) -> str:
    return text.partition(" ")[0].lower()
