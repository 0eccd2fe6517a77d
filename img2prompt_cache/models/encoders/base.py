"""Encoders: the frozen text encoder that computes the targets, of sentence-transformers or open_clip."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError, unknown
from img2prompt_cache.models.encoders.prompts import CLEAN_RULES
from img2prompt_cache.models.encoders.prompts import clean as clean_prompt
from img2prompt_cache.models.specs import ENCODER_FAMILIES, Spec, parse_spec
from img2prompt_cache.progress import Callback, note
from img2prompt_cache.tables import counted

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from img2prompt_cache.models.encoders.clip_text import TextTower
    from img2prompt_cache.models.encoders.sentence_model import SentenceModel

MOST_CHARACTERS = 1 << 20
"""Characters of a prompt that are looked at; the cleaning of more would take gigabytes."""

_PROBE = "Two RED boats, 4k (naïve café) 船 ½ 🚤 -- don't"
"""A text that tokenizers of one vocabulary can split differently: case, accents, punctuation, scripts."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A frozen text encoder, ready to run.

    Attributes
    ----------
    spec : str
        As the user spells it: ``"st:all-MiniLM-L6-v2"``.
    model : SentenceModel or TextTower
        In float32, in eval mode.
    dim : int
        Width of an embedding.
    clean : str
        The rule of `prompts.CLEAN_RULES` that is applied to a prompt first.
    fingerprint : dict of str to str
        All that an embedding depends on. It does not contain where the weights are from: two specs of the
        same model have the same one.
    revision : str
        The commit of weights from the hub; empty for other weights.
    folder : pathlib.Path or None
        Where its weights lie, if not where the spec says.
    """

    spec: str
    model: SentenceModel | TextTower
    dim: int
    clean: str
    fingerprint: dict[str, str]
    revision: str = ""
    folder: Path | None = None

    @property
    def longest(self) -> int:
        """Most characters of a prompt that are encoded."""
        return self.model.longest

    def overlong(self, prompts: Iterable[str]) -> int:
        """Count the prompts that are longer than what is encoded of them."""
        return sum(len(prompt) > self.longest for prompt in prompts)

    def earlier(self) -> Encoder:
        """Return the same encoder, run as earlier versions ran it, which gives other last bits."""
        return replace(self, model=self.model.earlier())

    def encode(self, prompts: Sequence[str], batch_tokens: int | None = None) -> NDArray[np.float32]:
        """Embed prompts, each distinct one (after cleaning) once.

        Of a prompt longer than `longest` characters, only the first ones are encoded: no tokenizer's window
        reaches farther, and tokenizing needs 200 bytes for each character.

        The values depend on the set of distinct prompts in the call, on `batch_tokens` and on the machine,
        but not on order or repetition. Between calls with different sets a prompt's embedding can differ in
        its last bits, because shorter prompts are padded to the longest of their batch; call it with the same
        prompts where the same bytes are wanted.

        Parameters
        ----------
        prompts : sequence of str, length n
        batch_tokens : int, optional
            Tokens run together, with their padding; by default as many as suit the device.

        Returns
        -------
        numpy.ndarray, float32, shape (n, dim)
            Unit-norm embeddings.

        Raises
        ------
        Img2PromptError
            If an embedding is not finite.
        """
        cleaned = [clean_prompt(prompt[:MOST_CHARACTERS], self.clean)[: self.longest] for prompt in prompts]
        distinct = sorted(set(cleaned))
        if not distinct:
            return np.empty((0, self.dim), np.float32)
        vectors = self.model.encode(distinct, batch_tokens)
        if not np.isfinite(vectors).all():
            raise Img2PromptError(
                f"{self.spec} gives embeddings that are not finite; its weights are damaged"
            )
        place = {prompt: row for row, prompt in enumerate(distinct)}
        return vectors[[place[prompt] for prompt in cleaned]]


def tell_overlong(count: int, encoder: Encoder, tell: Callback) -> None:
    """Tell of prompts of which only the beginning was encoded."""
    if count:
        note(
            tell,
            f"{counted(count, 'prompt is', 'prompts are')} longer than {encoder.longest} characters, far "
            f"more than {encoder.spec} reads; only the beginning was encoded",
        )


def load_encoder(
    spec: str,
    *,
    clean: str = "none",
    device: str = "cpu",
    revision: str = "",
    folder: Path | None = None,
) -> Encoder:
    """Load a frozen text encoder.

    Parameters
    ----------
    spec : str
        ``st:NAME`` (of sentence-transformers), ``st:owner/name[@revision]``, ``st:local-dir:PATH``,
        ``packaged:NAME``, or a spec of an open_clip backbone, for its text tower.
    clean : str
        One of `prompts.CLEAN_RULES`.
    device : str
        As torch spells it.
    revision : str, optional
        Commit, tag or branch of weights from the hub, instead of the spec's.
    folder : pathlib.Path, optional
        Where its weights lie, in place of where the spec says.

    Raises
    ------
    UsageError
        If there is no such model or rule.
    Img2PromptError
        If the weights cannot be loaded, or not without running code or a pickle that comes with them.
    """
    parsed = parse_spec(spec, ENCODER_FAMILIES)
    if clean not in CLEAN_RULES:
        raise unknown("`clean` rule", clean, CLEAN_RULES, parameter="clean")
    with _quiet():
        model = _load_model(parsed, device, revision, folder)
    dim = model.encode([""]).shape[1]
    fingerprint = {**model.fingerprint(_PROBE), "clean": clean}
    return Encoder(str(parsed), model, dim, clean, fingerprint, model.revision, folder)


def _load_model(spec: Spec, device: str, revision: str, folder: Path | None) -> SentenceModel | TextTower:
    # Only the library that is needed is imported.
    if spec.family == "open_clip":
        from img2prompt_cache.models.encoders.clip_text import TextTower

        return TextTower(spec, revision, device, folder)
    from img2prompt_cache.models.encoders.sentence_model import SentenceModel

    return SentenceModel(spec, revision, device, folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries from writing progress bars and messages to stderr while they load."""
    from huggingface_hub import utils
    from transformers.utils import logging as messages

    hub_utils: Any = utils  # neither of them is typed
    transformers_logging: Any = messages
    loggers = [
        logging.getLogger(name) for name in ("sentence_transformers", "transformers", "huggingface_hub")
    ]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    hub_bars = not hub_utils.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    hub_utils.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if hub_bars:
            hub_utils.enable_progress_bars()
