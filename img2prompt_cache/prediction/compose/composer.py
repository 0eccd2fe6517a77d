"""Composer: known prompts, their phrases and an encoder, ready to write prompts for predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.devices import has_bf16
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.bank import Bank
from img2prompt_cache.prediction.compose.draft import Draft, draft_of
from img2prompt_cache.prediction.compose.mining import MODIFIER, MOST_MODIFIERS, SUBJECT, mine
from img2prompt_cache.prediction.compose.parts import key
from img2prompt_cache.prediction.compose.search import Table, search
from img2prompt_cache.prediction.kept import encode_kept, kept_path
from img2prompt_cache.progress import Callback, ignore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.encoders.base import Encoder

    F32 = NDArray[np.float32]

TOGETHER = 32
"""Images that are searched for together, with 1.5 MB each."""

NEAR = 8
"""Known prompts and subjects of each kind that a search begins with."""

LONGEST_SEED = 60
"""Words of a known prompt that is begun with as a whole; of a longer one, its subject."""


class Composer:
    """Writes prompts whose embeddings are near predictions, of phrases that people wrote.

    Parameters
    ----------
    banks : sequence of Bank
        Prompts to take phrases from, and to begin with. Those of the first bank decide how many modifiers a
        prompt may have, and whether it ends with a full stop.
    encoder : Encoder
        That of the predictions.
    device : str
        Where the encoder is, as torch spells it.
    tell : callable
        Told of the phrases as they are encoded; of none where they were kept.

    Raises
    ------
    UsageError
        If no prompt has a readable subject.
    """

    def __init__(
        self,
        banks: Sequence[Bank],
        encoder: Encoder,
        *,
        device: str = "cpu",
        tell: Callback = ignore,
    ) -> None:
        self._banks = banks
        self._encoder = encoder
        self._device = device
        self._mined = mine(*(bank.prompts for bank in banks))
        kinds = np.array([phrase.kind for phrase in self._mined.phrases], np.int64)
        self._subjects = np.flatnonzero(kinds == SUBJECT)
        if not len(self._subjects):
            raise UsageError(
                "`compose=True` found no readable subject in the prompts that are known; "
                "name others with `bank`",
                parameter="compose",
            )
        self._table = Table(
            self._mined.phrases, self._encode_phrases(tell), most_modifiers=self._mined.most_modifiers
        )
        self._known = {(phrase.kind, key(phrase.text)): phrase for phrase in self._mined.phrases}

    @property
    def phrases(self) -> int:
        """Number of phrases."""
        return len(self._table.phrases)

    def compose(self, vectors: F32) -> tuple[list[str], F32]:
        """Write a prompt for each prediction.

        Parameters
        ----------
        vectors : numpy.ndarray, float32, shape (n, dim)
            Unit norm.

        Returns
        -------
        prompts : list of str, length n
        cosines : numpy.ndarray, float32, shape (n,)
            Of each prompt's embedding to the prediction.

        Raises
        ------
        Img2PromptError
            If a prediction is not finite.
        """
        prompts: list[str] = []
        for start in range(0, len(vectors), TOGETHER):
            goals = np.ascontiguousarray(vectors[start : start + TOGETHER], np.float32)
            found = search(goals, self._seeds(goals), self._table, self._try)
            prompts += [self._ended(each.draft) for each in found]
        return prompts, np.einsum("ij,ij->i", self._encoder.encode(prompts), vectors)

    def _seeds(self, vectors: F32) -> list[list[Draft]]:
        """Give what a search begins with: near prompts, whole and without modifiers, and near subjects."""
        seeds: list[list[Draft]] = [[] for _ in vectors]
        for number, bank in enumerate(self._banks):
            most = self._table.most_modifiers if number else MOST_MODIFIERS
            for drafts, near in zip(seeds, bank.nearest(vectors, NEAR)[0], strict=True):
                for prompt in near:
                    draft = draft_of(prompt, self._known)
                    if draft is None:
                        continue
                    if draft.words <= LONGEST_SEED and draft.count(MODIFIER) <= most:
                        drafts.append(draft)
                    drafts.append(Draft(draft.phrases[:1]))
        table = self._table.vectors[self._subjects]
        for drafts, vector in zip(seeds, vectors, strict=True):
            nearest = np.argsort(-(table @ vector), kind="stable")[:NEAR]
            drafts += [Draft((self._table.phrases[self._subjects[at]],)) for at in nearest]
        return seeds

    def _encode_phrases(self, tell: Callback) -> F32:
        """Embed all phrases; those that differ in case and punctuation only, once."""
        names = [key(phrase.text) for phrase in self._mined.phrases]
        distinct = {name: phrase.text for name, phrase in zip(names, self._mined.phrases, strict=True)}
        texts = [*distinct.values()]
        content = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        with self._quickly():
            vectors = encode_kept(
                kept_path(content, self._encoder), texts, self._encoder, "encode phrases", tell
            )
        place = {name: row for row, name in enumerate(distinct)}
        return vectors[[place[name] for name in names]]

    def _try(self, texts: list[str]) -> F32:
        """Embed candidates."""
        with self._quickly():
            return unit(self._encoder.encode(texts))  # a text tower normalises in what it computes in

    def _quickly(self) -> AbstractContextManager[Any]:
        """Compute in bfloat16 where that is fast: it moves a cosine by less than 0.001."""
        import torch

        kind = self._device.partition(":")[0]
        return torch.autocast(kind, torch.bfloat16) if has_bf16(self._device) else nullcontext()

    def _ended(self, draft: Draft) -> str:
        """Give the text of a draft, with a full stop where people write one."""
        return draft.text + ("." if self._mined.ends_with_stop else "")
