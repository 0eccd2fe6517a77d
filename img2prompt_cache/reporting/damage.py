"""Damage: what data raise that are not as they should be, such as a run that somebody wrote by hand."""

from __future__ import annotations

from img2prompt_cache.errors import Img2PromptError

DATA_ERRORS = (Img2PromptError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""A section or check that meets one of these is left out, and says why; the others are made."""


def told(error: Exception) -> str:
    """Say what is wrong, in one line."""
    ours = type(error).__module__.startswith("img2prompt_cache")
    return str(error) if ours else f"{type(error).__name__}: {error}"
