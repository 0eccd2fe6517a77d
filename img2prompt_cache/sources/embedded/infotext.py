"""Infotexts: how AUTOMATIC1111's web UI and its many successors write prompt and settings as text."""

from __future__ import annotations

import re

_END_OF_PROMPT = re.compile(
    r"^(?:Negative prompt:|Steps: *\d)|(?:Negative prompt:.*)?Steps: *\d+, (?:Sampler|CFG scale|Seed|Size):",
    re.MULTILINE,
)
"""The first line of the settings; or, where a tool dropped line breaks, settings on the prompt's line."""

_SETTINGS = re.compile(
    r"(?:Postprocess|Upscaler?|GFPGAN|CodeFormer|Denoising|Sampler|Steps|Seed|Size|Model|Version)\b"
    r"[^:,\n]*: ?\S"
)
_PLACEHOLDERS = {
    *(
        "unknown",
        "none",
        "null",
        "undefined",
        "untitled",
        "screenshot",
        "user comment",
        "ascii",
        "charset=ascii",
    ),
    *("created with gimp", "olympus digital camera", "processed with vsco", "lead technologies inc"),
}
"""Texts that stand where a prompt might, written by cameras, phones and savers that know no prompt."""


def prompt_of_infotext(text: str) -> str | None:
    """Give the prompt of an infotext: what stands before ``Negative prompt:`` and the settings.

    Returns
    -------
    str or None
        None where there is no prompt: settings alone, such as an upscaler's, or a placeholder.
    """
    if _SETTINGS.match(text):
        return None
    end = _END_OF_PROMPT.search(text)
    prompt = (text[: end.start()] if end else text).strip()
    lowered = prompt.lower().rstrip(". ")
    return (
        None if not prompt or lowered in _PLACEHOLDERS or lowered.startswith("creator: gd-jpeg") else prompt
    )


def is_infotext(text: str) -> bool:
    """Whether a text has the settings or the negative prompt that only a generator writes."""
    return _END_OF_PROMPT.search(text) is not None
