"""Prompts in texts and JSON records: detecting their form and extracting the prompt.

A text may be the prompt itself, the infotext of AUTOMATIC1111's web UI (prompt and settings in one text), the
block of settings that Easy Diffusion writes, or JSON. A record (a JSON object) has the prompt under one of
the names that programs use for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from img2prompt_cache.sources.embedded.infotext import is_infotext, prompt_of_infotext
from img2prompt_cache.sources.embedded.prompts import FLAGS, Found, prompt_in
from img2prompt_cache.sources.several import distinct

NAMES = ("prompt", "positive_prompt", "positiveprompt", "text", "caption", "txt", "prompts", "captions")
"""Names of the prompt in a record, the preferred one first; case is ignored."""
NESTED = (
    *("meta", "metadata", "generation", "generation_data", "generationdata", "parameters", "params"),
    *("reqbody", "request", "image", "sd-metadata", "json"),
)
"""Names of records inside a record that may contain the prompt."""
DEEPEST = 4
"""Depth of records inside records that are searched."""

JSON_START = r'^\s*(?:\{\s*"|\[\s*")'
"""Matches the start of JSON, but not ``{red|blue}`` or ``[cat:dog]``; in the syntax of `re` and of RE2."""

_BLOCK_NUMBER = re.compile(
    r"^(?:width|height|seed|(?:num_inference_)?steps|guidance[ _]scale) *: *[\d.]+[ \t]*\r?$",
    re.IGNORECASE | re.MULTILINE,
)
_BLOCK_PROMPT = re.compile(r"^prompt *: *", re.IGNORECASE | re.MULTILINE)
_BLOCK_SETTING = re.compile(
    r"^(?:(?:original|negative)[ _]prompt|prompt[ _]strength|width|height|seed|(?:num_inference_)?steps"
    r"|guidance[ _]scale|sampler(?:[ _]name)?|clip[ _]skip|(?:seamless )?tiling|upscale[ _](?:by|amount)"
    r"|latent[ _]upscaler[ _]steps|control[ _](?:alpha|filter[ _]to[ _]apply)"
    r"|(?:lora|hypernetwork)[ _]\w{1,40}|use[ _][\w ]{1,40}"
    r"|(?:controlnet|vae|lora|hypernetwork|embedding|stable[ _]diffusion)[ _]models?"
    r"|num[ _]outputs|output[ _]\w{1,40}|created[ _]at|active[ _]tags|preserve[ _][\w ]{1,40}) *:",
    re.IGNORECASE | re.MULTILINE,
)
"""The lines of Easy Diffusion's block, with the names in its interface and in its code."""
_BOX = re.compile(r"\s*\d+(?:[ \t]+[-+.\deE]+){4,}\s*")
"""Labels for object detection are also stored beside images: a class and coordinates on each line."""
_BEFORE = re.compile(r"\s*(?:/imagine\s+)?(?:prompt:\s*)?(?:<?https?://\S+\s+)*", re.IGNORECASE)
_EXTRAS = re.compile(r"Postprocess [\w ]{1,40}:")
"""The start of an upscaler's settings, which contain no prompt."""


def decode_text(data: bytes) -> str:
    """Decode the bytes of a text file: UTF-8, or UTF-16 if it starts with a byte order mark.

    Raises
    ------
    UnicodeDecodeError
        If they are neither.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def prompt_of_text(text: str) -> Found | None:
    """Find the prompt in a text beside an image.

    Returns
    -------
    Found or None
        A plain text without line breaks at its end (reader ``"text"``), or the prompt in an infotext
        (``"a1111"``), in a block of Easy Diffusion (``"easydiffusion"``) or in JSON. None if the text is
        blank, or has only settings or coordinates.
    """
    if not text.strip() or _EXTRAS.match(text) or all(map(_BOX.fullmatch, text.strip().splitlines())):
        return None
    if text.lstrip().startswith("{"):
        record = parse_json(text)
        if isinstance(record, dict):
            return prompt_of_record(record)
    if len(_BLOCK_NUMBER.findall(text)) >= 2:
        return _found(_prompt_of_block(text), "easydiffusion")
    if is_infotext(text):
        return _found(prompt_of_infotext(text), "a1111")
    return Found(text.rstrip("\r\n"), "text")


def prompt_of_record(record: Mapping[str, object], depth: int = DEEPEST) -> Found | None:
    """Find the prompt in a JSON object, or in an object inside it; None if there is none.

    Parameters
    ----------
    record : mapping
        As `json` returns it.
    depth : int
        Depth of objects inside objects to search.
    """
    named: dict[str, object] = {}
    for key, value in record.items():
        named.setdefault(str(key).lower(), value)
    for name in NAMES:
        value = named.get(name)
        prompts = [] if isinstance(value, dict) and _is_graph(value) else prompts_of_value(value)
        if prompts:
            return _found(prompts[0], "json", prompts[1:])
    command = named.get("full_command")
    if isinstance(command, str):
        return _found(prompt_of_command(command), "midjourney")
    for name in ("parameters", "infotext"):
        value = named.get(name)
        if isinstance(value, str) and is_infotext(value):
            return _found(prompt_of_infotext(value), "a1111")
    if depth == DEEPEST:
        found = prompt_in({"parameters": json.dumps(record)})
        if found:
            return found
    for name in NESTED if depth > 1 else ():
        inner = named.get(name)
        inner = parse_json(inner) if isinstance(inner, str) and inner.lstrip().startswith("{") else inner
        found = prompt_of_record(inner, depth - 1) if isinstance(inner, dict) else None
        if found:
            return found
    return _of_only_image(named.get("images"), depth)


def prompts_of_value(value: object, depth: int = DEEPEST) -> list[str]:
    """Find the prompts in a value of a column of prompts.

    Parameters
    ----------
    value : object
        A text, which may be JSON; a list of prompts; or an object with a prompt. Of a list of objects with
        weights, which are parts of one prompt, only the first is taken.
    depth : int
        Depth of values inside values to search.

    Returns
    -------
    list of str
        Each distinct prompt once, in order; empty if there is none.
    """
    if isinstance(value, str):
        inner = parse_json(value) if re.match(JSON_START, value) else None
        if isinstance(inner, list) or (isinstance(inner, dict) and _has_name(inner)):
            value = inner
        else:
            return [value] if value.strip() else []
    if depth and isinstance(value, list):
        prompts = distinct(prompt for one in value for prompt in prompts_of_value(one, depth - 1))
        return prompts[:1] if any(isinstance(one, dict) and "weight" in one for one in value) else prompts
    if depth and isinstance(value, Mapping):
        found = prompt_of_record(value, min(depth, DEEPEST - 1))
        return [found.prompt, *found.more] if found else []
    return []


def prompt_of_command(command: str) -> str:
    """Take the text out of a command to Midjourney, without pictures before it and flags after it."""
    before = _BEFORE.match(command)
    return FLAGS.sub("", f" {command[before.end() if before else 0 :]}").strip()


def _prompt_of_block(text: str) -> str | None:
    """Return the text after ``Prompt:``; in older blocks, the text before the first setting."""
    label = _BLOCK_PROMPT.search(text)
    start = label.end() if label else 0
    end = _BLOCK_SETTING.search(text, start)
    return text[start : end.start() if end else None].strip()


def _of_only_image(images: object, depth: int) -> Found | None:
    """Read the example image in a model's record by Civitai; of several, it is unclear which one is meant."""
    if depth > 1 and isinstance(images, list) and len(images) == 1 and isinstance(images[0], dict):
        return prompt_of_record(images[0], depth - 1)
    return None


def _is_graph(value: Mapping[str, object]) -> bool:
    return any(isinstance(node, dict) and "class_type" in node for node in value.values())


def _has_name(record: Mapping[str, object]) -> bool:
    return any(str(name).lower() in NAMES for name in record)


def _found(prompt: str | None, reader: str, more: Iterable[str] = ()) -> Found | None:
    if not prompt or not prompt.strip():
        return None
    # JSON can contain half a surrogate pair, which UTF-8 cannot store.
    first, *others = (text.rstrip("\r\n").encode(errors="replace").decode() for text in (prompt, *more))
    return Found(first, reader, tuple(others))


def parse_json(text: str) -> object:
    """Parse a text; None if it is not JSON."""
    try:
        return json.loads(text.strip("\0\ufeff \r\n\t"))
    except (ValueError, RecursionError):
        return None
