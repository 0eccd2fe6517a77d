"""Beam search for prompts near a prediction: edits are estimated first, and the best ones encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from img2prompt_cache.prediction.compose.draft import Draft
from img2prompt_cache.prediction.compose.mining import ACTION, MODIFIER, SECOND, SUBJECT, TAIL, Phrase
from img2prompt_cache.prediction.compose.stand_in import added, removed, weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

BEAM = 3
ROUNDS = 6
EDITS = {"add": 2, "swap": 2, "drop": 1}
"""Edits of each kind that are encoded for each draft of the beam in each round."""

SHORTLIST = 250
"""Phrases of each kind, nearest to the prediction, that edits are made of."""

PRICE = 0.012
"""What a phrase has to add to the cosine to be worth reading."""

TWINS = 0.8
"""Cosine of phrases from which on they say the same: that of near-identical prompts."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Phrases with their embeddings, unit norm, shape (p, dim); and how many modifiers a prompt may have."""

    phrases: Sequence[Phrase]
    vectors: F32
    most_modifiers: int

    @property
    def limits(self) -> dict[int, int]:
        """Most phrases of each kind in a prompt."""
        return {SUBJECT: 1, ACTION: 1, TAIL: 2, SECOND: 1, MODIFIER: self.most_modifiers}


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A draft with its embedding, and the cosine of that to the prediction."""

    draft: Draft
    vector: F32
    cosine: float

    @property
    def worth(self) -> float:
        """The cosine less the price of the phrases."""
        return self.cosine - PRICE * len(self.draft.phrases)


class _Image:
    """The search for one image."""

    def __init__(self, goal: F32, table: Table, kinds: NDArray[np.int64]) -> None:
        self.goal, self.table = goal, table
        self.beam: list[Found] = []
        self.seen: set[str] = set()
        self.done = False
        near = self.table.vectors @ self.goal
        chosen = []
        for kind in self.table.limits:
            rows = np.flatnonzero(kinds == kind)
            chosen.append(rows[np.argsort(-near[rows], kind="stable")[:SHORTLIST]])
        self.rows = np.concatenate(chosen)
        self.kinds = kinds[self.rows]
        self.vectors = self.table.vectors[self.rows]
        self.shares = np.array([weight(self.table.phrases[row].words) for row in self.rows], np.float32)

    def propose(self) -> list[Draft]:
        """Give the edits of the beam that are to be encoded, none of them seen before."""
        drafts = []
        for found in self.beam:
            taken = dict.fromkeys(EDITS, 0)
            for edit in sorted(_edits(self, found), key=lambda edit: -edit.worth):
                if taken[edit.name] == EDITS[edit.name] or not _fits(edit, self.table):
                    continue
                draft = edit.rest.with_phrase(edit.new) if edit.new else edit.rest
                if draft.text not in self.seen:
                    self.seen.add(draft.text)
                    taken[edit.name] += 1
                    drafts.append(draft)
        return drafts

    def keep(self, drafts: Sequence[Draft], vectors: F32) -> None:
        """Take what was encoded into the beam; the search is done once that does not change it."""
        found = [
            Found(draft, vector, float(vector @ self.goal))
            for draft, vector in zip(drafts, vectors, strict=True)
        ]
        before = [*self.beam]
        ranked = sorted([*before, *found], key=lambda each: -each.worth)
        self.beam = ranked[:BEAM]
        self.done = bool(before) and self.beam == before


class _Edit(NamedTuple):
    """What an edit keeps of a draft, what it puts in, and the estimated worth of that."""

    worth: float
    name: str
    rest: Draft
    new: Phrase | None = None


def _edits(image: _Image, found: Found) -> Iterator[_Edit]:
    """Give the best edits of a draft with their estimated worth, more than will be encoded."""
    draft, table = found.draft, image.table
    known = [phrase for phrase in draft.phrases if phrase.row >= 0]
    bases = [found.vector] + [
        removed(found.vector, weight(draft.words), table.vectors[phrase.row], weight(phrase.words))
        for phrase in known
    ]
    weights = [weight(draft.words), *(weight(max(draft.words - phrase.words, 1)) for phrase in known)]
    estimates = added(np.stack(bases), np.array(weights, np.float32), image.vectors, image.shares, image.goal)
    counts = {kind: draft.count(kind) for kind in table.limits}
    room = np.array([counts[kind] < limit for kind, limit in table.limits.items()])
    price = PRICE * len(draft.phrases)
    for at in _best(estimates[0], room[image.kinds], 12):
        new = table.phrases[image.rows[at]]
        yield _Edit(float(estimates[0, at]) - price - PRICE, "add", draft, new)
    for number, phrase in enumerate(known, 1):
        rest = draft.without(phrase)
        if phrase.kind != SUBJECT:
            yield _Edit(float(bases[number] @ image.goal) - price + PRICE, "drop", rest)
        for at in _best(estimates[number], image.kinds == phrase.kind, 3):
            new = table.phrases[image.rows[at]]
            yield _Edit(float(estimates[number, at]) - price, "swap", rest, new)


def _best(values: F32, allowed: NDArray[np.bool_], number: int) -> NDArray[np.int64]:
    """Give the places of the largest values among those that are allowed, largest first."""
    places = np.flatnonzero(allowed)
    best: NDArray[np.int64] = places[np.argsort(-values[places], kind="stable")[:number]]
    return best


def _fits(edit: _Edit, table: Table) -> bool:
    """Say whether the new phrase of an edit fits in, and means something else than each of the others."""
    if edit.new is None:
        return True
    if not edit.rest.takes(edit.new):
        return False
    rows = [phrase.row for phrase in edit.rest.phrases if phrase.row >= 0]
    return not rows or float((table.vectors[rows] @ table.vectors[edit.new.row]).max()) < TWINS


def search(
    goals: F32,
    seeds: Sequence[Sequence[Draft]],
    table: Table,
    encode: Callable[[list[str]], F32],
) -> list[Found]:
    """Search for a prompt near each of some predictions.

    All images go through the rounds together, so that an encoder gets large batches. In each round every
    draft of an image's beam is edited: a phrase is added, exchanged for another of its kind, or left out. The
    `stand_in` estimates all edits, and the encoder says what the best few of them are worth.

    Parameters
    ----------
    goals : numpy.ndarray, float32, shape (n, dim)
        Predictions, unit norm.
    seeds : sequence of sequence of Draft, length n
        Drafts to begin with, at least one for each image.
    table : Table
        Phrases to edit with.
    encode : callable
        Gives unit-norm embeddings of texts.

    Returns
    -------
    list of Found, length n
        The best draft of each image by its cosine, less `PRICE` for each of its phrases.
    """
    kinds = np.array([phrase.kind for phrase in table.phrases], np.int64)
    images = [_Image(goal, table, kinds) for goal in goals]
    wanted = [_distinct(drafts, image.seen) for drafts, image in zip(seeds, images, strict=True)]
    for _ in range(ROUNDS + 1):
        texts = [draft.text for drafts in wanted for draft in drafts]
        vectors = encode(texts) if texts else np.empty((0, goals.shape[1]), np.float32)
        start = 0
        for image, drafts in zip(images, wanted, strict=True):
            if not image.done:
                image.keep(drafts, vectors[start : start + len(drafts)])
            start += len(drafts)
        wanted = [[] if image.done else image.propose() for image in images]
        if not any(wanted):
            break
    return [image.beam[0] for image in images]


def _distinct(drafts: Sequence[Draft], seen: set[str]) -> list[Draft]:
    fresh = []
    for draft in drafts:
        if draft.text not in seen:
            seen.add(draft.text)
            fresh.append(draft)
    return fresh
