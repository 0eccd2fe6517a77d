"""Target embeddings: prompts a second of an encoder of the size of all-MiniLM-L6-v2."""

from __future__ import annotations

import torch
from inputs import prompts
from setting import Notes, Setting, device, seconds

from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.numerics.metrics import cosine


def measure(setting: Setting, notes: Notes) -> None:
    """Encode distinct prompts, in batches of several sizes; compare with the CPU."""
    texts = prompts(64 if setting.small else 10_000)
    encoder = load_encoder(setting.encoder, device=device())
    for batch in (2048, 16_384, 65_536):
        taken = seconds(lambda batch=batch: encoder.encode(texts, batch), repeats=1, warm=1)
        notes.add(f"batches of {batch} tokens, prompts_s", len(texts) / taken)
    some = texts[:256]
    exact = encoder.encode(some)
    between = cosine(exact, load_encoder(setting.encoder).encode(some))
    notes.add("cosine to the CPU, least", float(between.min()))
    with torch.autocast(device(), torch.bfloat16):
        taken = seconds(lambda: encoder.encode(texts), repeats=1, warm=1)
        notes.add("bf16, prompts_s", len(texts) / taken)
        notes.add("bf16, cosine, least", float(cosine(encoder.encode(some), exact).min()))
