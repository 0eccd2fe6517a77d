"""Several prompts of one image, such as the five captions of a photo in Flickr8k and COCO.

The first prompt of an image stands in the column `prompt`, as the only one of other images does. The others
are one text in the column `more_prompts`: a JSON list of strings, empty where there are none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

MORE_PROMPTS = "more_prompts"
"""Name of the column of a listing, and of a cache, that has all prompts of an image but the first."""
MOST_PROMPTS = 16
"""Most prompts of an image that are kept."""
LONGEST_PROMPT = 1 << 20
"""Most characters of a prompt; what is longer is something else, and is not kept."""


def distinct(prompts: Iterable[str | None]) -> list[str]:
    """Leave out blank prompts, and those that are equal to an earlier one but for white space around them."""
    found: dict[str, str] = {}
    for prompt in prompts:
        if prompt and prompt.strip():
            found.setdefault(prompt.strip(), prompt)
    return list(found.values())


def pack(prompts: Iterable[str]) -> str:
    """Write prompts as the text of one row; empty if there are none."""
    texts = [as_text(prompt) for prompt in prompts]
    return json.dumps(texts, ensure_ascii=False) if texts else ""


def unpack(text: str) -> list[str]:
    """Read what `pack` wrote; nothing, and no error, from a text that it did not write."""
    if not text.startswith("["):
        return []
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(values, list):
        return []
    return distinct(as_text(value) for value in values if isinstance(value, str))


def as_text(prompt: str) -> str:
    """Leave out what HDF5 and UTF-8 cannot store: NUL characters, and halves of surrogate pairs."""
    return prompt.replace("\0", "").encode(errors="replace").decode()
