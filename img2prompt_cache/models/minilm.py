"""MiniLM, by whose embeddings near-identical prompts are told, whatever encoder makes the targets."""

from __future__ import annotations

from img2prompt_cache.cache.manifest import Column
from img2prompt_cache.models.weights.hub import is_cached
from img2prompt_cache.models.weights.packaged import list_packaged

MINILM = "all-MiniLM-L6-v2"
_WEIGHTS = "sha256:cfbf91e1b52dad42a15d2f10cb3672e5c7a44c1db88deb43bbd7390898c7ee09"
"""Of MiniLM, as fingerprints have it, whatever folder or package the weights come from."""
_FILES = ("modules.json", "tokenizer.json", "model.safetensors")
"""Files of its repository on the hub without which it cannot be loaded."""


def is_minilm(column: Column) -> bool:
    """Whether a target column has embeddings by MiniLM, from whichever place its weights are."""
    family, _, name = column.spec.partition(":")
    named = name.partition("@")[0].rpartition("/")[2] == MINILM
    known = named and family in ("st", "packaged") and not name.startswith("local-dir:")
    return known or column.fingerprint.get("weights") == _WEIGHTS


def find_minilm() -> str | None:
    """Give the spec of MiniLM whose weights are on this machine: packaged, or in the hub's local cache.

    Returns
    -------
    str or None
        None where they would have to be downloaded first.
    """
    try:
        if any(model.present for model in list_packaged() if model.name == MINILM):
            return f"packaged:{MINILM}"
        return f"st:{MINILM}" if is_cached(f"sentence-transformers/{MINILM}", _FILES) else None
    except OSError:  # folders of another user, which may not be looked into
        return None
