"""The prompt that a program wrote into its image: AUTOMATIC1111, InvokeAI, ComfyUI.

Only the positive prompt is taken; the negative one and the settings are not part of it. Where an image
carries several texts, one that states the prompt goes before the ComfyUI graph it must be found in.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

from img2prompt_cache.sources.comfyui import positive_prompt
from img2prompt_cache.sources.imagetexts import read_texts

_END_OF_PROMPT = re.compile(r"^(?:Negative prompt:|Steps: *\d)", re.MULTILINE)
_DREAM = re.compile(r'\s*"((?:[^"\\]|\\.)*)"')
_BRACKETS = re.compile(r"\[[^\[\]]*\]")


def read_prompt(image: bytes | Path) -> str | None:
    """Read the positive prompt that an image file carries.

    Parameters
    ----------
    image : bytes or pathlib.Path
        A PNG, JPEG or WebP file, or where it lies; pixels are not decoded.

    Returns
    -------
    str or None
        None if there is none, or the file is damaged, of another kind or cannot be read.
    """
    try:
        if isinstance(image, bytes):
            return prompt_in(read_texts(io.BytesIO(image)))
        with image.open("rb") as file:
            return prompt_in(read_texts(file))
    except OSError:
        return None


def prompt_in(texts: Mapping[str, str]) -> str | None:
    """Choose the positive prompt among the texts of an image; None if there is none.

    Parameters
    ----------
    texts : mapping of str to str
        Keyword to text, see `imagetexts.read_texts`.
    """
    for keyword, parse in _PARSERS.items():
        prompt = parse(texts[keyword]) if keyword in texts else None
        if prompt and prompt.strip():
            # Half a surrogate pair can stand in JSON, but not in a cache of UTF-8.
            return prompt.strip().encode(errors="replace").decode()
    return None


def automatic1111(text: str) -> str | None:
    """Parse ``parameters``: the lines before ``Negative prompt:`` or ``Steps:``.

    Programs that came later put JSON there (Fooocus, SwarmUI); its `prompt` is taken.
    """
    if text.lstrip().startswith("{"):
        value = _json(text)
        if isinstance(value, dict):
            inner = value.get("sui_image_params")
            return _string((inner if isinstance(inner, dict) else value).get("prompt"))
    end = _END_OF_PROMPT.search(text)
    return text[: end.start()] if end else text


def invokeai(text: str) -> str | None:
    """Parse ``invokeai_metadata``, InvokeAI 3 and later."""
    value = _json(text)
    return _string(value.get("positive_prompt")) if isinstance(value, dict) else None


def invokeai_2(text: str) -> str | None:
    """Parse ``sd-metadata``, InvokeAI 2; words in square brackets were its negative prompt."""
    value = _json(text)
    image = value.get("image") if isinstance(value, dict) else None
    prompt = image.get("prompt") if isinstance(image, dict) else None
    if isinstance(prompt, list):
        parts = [_string(part.get("prompt")) for part in prompt if isinstance(part, dict)]
        prompt = " ".join(part for part in parts if part)
    return _BRACKETS.sub("", prompt) if isinstance(prompt, str) else None


def dream(text: str) -> str | None:
    """Parse ``Dream``, the command line that InvokeAI 1 and 2 kept: the quoted text before the switches."""
    quoted = _DREAM.match(text)
    if quoted is None:
        return None
    return _BRACKETS.sub("", quoted.group(1).replace('\\"', '"'))


def comfyui(text: str) -> str | None:
    """Parse ``prompt``, the graph that ComfyUI ran."""
    return positive_prompt(_json(text))


_PARSERS = {
    "parameters": automatic1111,
    "invokeai_metadata": invokeai,
    "sd-metadata": invokeai_2,
    "Dream": dream,
    "prompt": comfyui,
}


def _json(text: str) -> object:
    try:
        return json.loads(text.rstrip("\0"))
    except (ValueError, RecursionError):
        return None


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None
