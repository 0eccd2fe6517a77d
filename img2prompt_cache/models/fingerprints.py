"""Fingerprints: all that the values of a column depend on, field by field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from img2prompt_cache.errors import Img2PromptError

if TYPE_CHECKING:
    import torch

Fingerprint = Mapping[str, str]
"""Field name to value, e.g. ``{"weights": "sha256:…", "preprocessing": "…", "precision": "bf16"}``."""


def digest(fingerprint: Fingerprint) -> str:
    """Hash a fingerprint: 64 hex digits, independent of the order of its fields."""
    text = json.dumps(dict(fingerprint), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Hash a state dict by value: names, shapes, dtypes and bytes, whatever file it was read from.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        As `torch.nn.Module.state_dict` gives it; on any device.

    Returns
    -------
    str
        ``"sha256:"`` and 64 hex digits.
    """
    import torch

    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{total.hexdigest()}"


def require_equal(what: str, cached: Fingerprint, current: Fingerprint, advice: str) -> None:
    """Refuse to mix values with two different fingerprints.

    Raises
    ------
    Img2PromptError
        Naming each field that differs, with both values, and `advice`.
    """
    fields = [key for key in sorted({*cached, *current}) if cached.get(key) != current.get(key)]
    if fields:
        told = "; ".join(
            f"{key} was {_short(cached.get(key))}, is now {_short(current.get(key))}" for key in fields
        )
        raise Img2PromptError(f"{what} was made differently: {told}. {advice}")


def _short(value: str | None) -> str:
    if value is None:
        return "absent"
    return value if len(value) <= 60 else value[:57] + "…"
