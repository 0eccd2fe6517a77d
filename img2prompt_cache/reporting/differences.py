"""Paired differences of two runs on the same held-out rows."""

from __future__ import annotations

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.runs.differences import Difference, differences
from img2prompt_cache.runs.entries import Entry
from img2prompt_cache.runs.run import Run


def paired(one: Run, reference: Run) -> Difference | None:
    """Compare a run with another one row by row; None where their predictions cannot be read."""
    try:
        return differences([Entry((one,))], Entry((reference,)))[0]
    except Img2PromptError:
        return None
