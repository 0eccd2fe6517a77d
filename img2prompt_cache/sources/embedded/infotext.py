"""Infotexts: prompt and settings in one text, as written by AUTOMATIC1111's web UI and its successors."""

from __future__ import annotations

import re

_END_OF_PROMPT = re.compile(
    r"^(?:Negative prompt:|Steps: *\d)|(?:Negative prompt:.*)?Steps: *\d+, (?:Sampler|CFG scale|Seed|Size):",
    re.MULTILINE,
)
"""The first line of the settings, or settings in the line of the prompt if a tool removed line breaks."""

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
"""Texts in the place of a prompt, written by cameras, phones and programs that do not know prompts."""


def prompt_of_infotext(text: str) -> str | None:
    """Return the prompt of an infotext: the text before ``Negative prompt:`` and the settings.

    Returns
    -------
    str or None
        None if there is no prompt, but only settings, such as an upscaler's, or a placeholder.
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
    """Check whether a text has settings or a negative prompt as generators write them."""
    return _END_OF_PROMPT.search(text) is not None
