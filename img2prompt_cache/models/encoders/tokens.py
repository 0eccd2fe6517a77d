"""Tokens of prompts, counted by an encoder's tokenizer alone: nothing else is loaded or downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from img2prompt_cache.models.encoders.base import MOST_CHARACTERS
from img2prompt_cache.models.encoders.prompts import clean as clean_prompt
from img2prompt_cache.models.specs import ENCODER_FAMILIES, parse_spec
from img2prompt_cache.models.weights.packaged import list_packaged

FILE, LIMIT_FILE = "tokenizer.json", "sentence_bert_config.json"
BATCH = 1024


def count_tokens(
    spec: str, prompts: Sequence[str], *, clean: str = "none", revision: str = "", longest: int = 1 << 14
) -> list[int] | None:
    """Count the tokens of each prompt, those included that the tokenizer puts before and after it.

    Parameters
    ----------
    spec : str
        Of a sentence encoder, as `load_encoder` takes it.
    prompts : sequence of str
    clean : str
        One of `prompts.CLEAN_RULES`, applied first.
    revision : str
        Commit of weights from the hub.
    longest : int
        Characters of a prompt that are looked at; the count of a longer one is that of its beginning.

    Returns
    -------
    list of int, or None
        None where the tokenizer is not on this machine, or the encoder has none of its own.
    """
    path = _find(spec, revision)
    if path is None:
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    found: list[int] = []
    for start in range(0, len(prompts), BATCH):
        texts = [
            clean_prompt(prompt[:MOST_CHARACTERS], clean)[:longest]
            for prompt in prompts[start : start + BATCH]
        ]
        # A lone surrogate is no character of UTF-8, which the tokenizer takes.
        safe = [text.encode("utf-8", "replace").decode() for text in texts]
        found += [len(encoding.ids) for encoding in tokenizer.encode_batch(safe)]
    return found


def read_limit(spec: str) -> int | None:
    """Read how many tokens of a text an encoder reads; None where its files are not on this machine."""
    path = _find(spec, "")
    if path is None:
        return None
    try:
        limit = json.loads((path.parent / LIMIT_FILE).read_text(encoding="utf-8")).get("max_seq_length")
    except (OSError, ValueError, AttributeError):
        return None
    return limit if isinstance(limit, int) else None


def _find(spec: str, revision: str) -> Path | None:
    """Find the file of a tokenizer on this machine."""
    parsed = parse_spec(spec, ENCODER_FAMILIES)
    if parsed.family == "packaged":
        folders = [model.path for model in list_packaged() if model.name == parsed.name]
        path = folders[0] / FILE if folders else None
    elif parsed.family == "st" and parsed.name.startswith("local-dir:"):
        path = Path(parsed.name.removeprefix("local-dir:")).expanduser() / FILE
    elif parsed.family == "st" and revision:
        from huggingface_hub import try_to_load_from_cache

        name = parsed.name.partition("@")[0]
        repository = name if "/" in name else f"sentence-transformers/{name}"
        cached = try_to_load_from_cache(repository, FILE, revision=revision)
        path = Path(cached) if isinstance(cached, str) else None
    else:
        path = None
    return path if path is not None and path.is_file() else None
