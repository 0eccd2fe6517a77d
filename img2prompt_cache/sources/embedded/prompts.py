"""Finding the prompt in an image file by its place in the file and its form.

Only the positive prompt is read, without the negative prompt and the settings. If an image contains several
texts, a prompt in plain text is preferred to a graph from which it must be extracted.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from img2prompt_cache.shortage import passing
from img2prompt_cache.sources.comfyui import positive_prompt
from img2prompt_cache.sources.embedded import invokeai
from img2prompt_cache.sources.embedded.infotext import is_infotext, prompt_of_infotext
from img2prompt_cache.sources.embedded.stealth import stealth_text
from img2prompt_cache.sources.embedded.texts import read_texts

_JOB_ID = re.compile(r"\s*\bJob ID:\s*[0-9a-f-]{8,}.*", re.IGNORECASE | re.DOTALL)
FLAGS = re.compile(r"\s--[a-z][a-z0-9]*\b.*", re.IGNORECASE | re.DOTALL)
"""The flags at the end of a prompt for Midjourney."""
_FREE_TEXTS = (
    *("exif:ImageDescription", "exif:XPComment", "exif:XPTitle", "jpeg:comment", "xmp:UserComment"),
    *("xmp:description", "iptc:caption", "Description", "Comment"),
)
"""Places where people and cameras write, too: only a text in a generator's form is a prompt there."""


@dataclass(frozen=True, slots=True)
class Found:
    """A prompt, and the program or form that it was read as: ``"a1111"``, ``"comfyui"``, ``"novelai"``, …

    `more` are further prompts of the same image, where a list of them was found.
    """

    prompt: str
    reader: str
    more: tuple[str, ...] = ()


def read_prompt(image: bytes | Path) -> str | None:
    """Read the positive prompt in an image file; see `find_prompt`."""
    found = find_prompt(image)
    return found.prompt if found else None


def find_prompt(image: bytes | Path) -> Found | None:
    """Find the positive prompt in an image file.

    Parameters
    ----------
    image : bytes or pathlib.Path
        A PNG, JPEG, WebP, AVIF, HEIC or JPEG XL file, or its path. Pixels are decoded only if the file
        contains no text and its alpha channel starts with the signature of a hidden one.

    Returns
    -------
    Found or None
        None if there is none, or the file is damaged, of another kind, or cannot be read.
    """
    try:
        if isinstance(image, bytes):
            return _find(io.BytesIO(image))
        with image.open("rb") as file:
            return _find(file)
    except OSError as error:
        if passing(error):
            raise
        return None


def _find(file: BinaryIO) -> Found | None:
    texts = read_texts(file)
    found = prompt_in(texts)
    if found is None and not texts:
        file.seek(0)
        hidden = stealth_text(file)
        if hidden is not None:
            found = prompt_in({"parameters": hidden})
            return found and Found(found.prompt, "stealth")
    return found


def prompt_in(texts: Mapping[str, str]) -> Found | None:
    """Choose the positive prompt among the texts of an image; None if there is none.

    Parameters
    ----------
    texts : mapping of str to str
        The text at each place; see `texts.read_texts`.
    """
    for reader, prompt in _candidates(texts):
        # JSON can contain half a surrogate pair, which UTF-8 cannot store.
        cleaned = (prompt_of_infotext(prompt) or "").strip().encode(errors="replace").decode()
        if cleaned:
            return Found(cleaned, reader)
    return None


def _candidates(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (reader, text) for every text that may be a prompt, the best one first."""
    novelai = texts.get("Software", texts.get("exif:Software", "")).startswith("NovelAI")
    for place, reader in (("parameters", "a1111"), ("exif:UserComment", "a1111")):
        if place in texts:
            yield from _stated(texts[place], reader)
    for place, read in _INVOKEAI.items():
        value = _json(texts.get(place, ""))
        if isinstance(value, dict):
            yield from _text(read(value), "invokeai")
    if "Dream" in texts:
        yield from _text(invokeai.dream(texts["Dream"]), "invokeai")
    if "generation_data" in texts:
        yield from _stated(texts["generation_data"], "tensorart", plain=False)
    for place in ("Comment", "exif:Make", "exif:Model"):
        if place in texts:
            yield from _stated(texts[place], "novelai" if novelai else "json", plain=False)
    if novelai:
        yield from _text(texts.get("Description", texts.get("exif:ImageDescription")), "novelai")
    if "prompt" in texts or "workflow" in texts:
        graph = _json(texts.get("prompt", ""))
        if isinstance(graph, dict) or "prompt" not in texts:
            yield from _text(positive_prompt(graph, _json(texts.get("workflow", ""))), "comfyui")
        elif graph is None and not texts["prompt"].lstrip().startswith(("{", "[[")):
            yield from _text(texts["prompt"], "easydiffusion")
    yield from _text(texts.get("xmp:AIPromptInformation"), "iptc")
    for place in _FREE_TEXTS:
        if place in texts:
            yield from _stated(texts[place], "a1111", plain=is_infotext(texts[place]))
            yield from _midjourney(texts[place])


def _stated(text: str, reader: str, *, plain: bool = True) -> Iterator[tuple[str, str]]:
    """Read a text that is JSON or, if `plain`, an infotext."""
    value = _json(text) if text.lstrip().startswith("{") else None
    if isinstance(value, dict):
        yield from _in_json(value, "json" if reader == "a1111" else reader)
    elif plain and not text.lstrip().startswith('{"'):  # "{red|blue} cat" is a prompt, truncated JSON is not
        yield reader, text


def _in_json(value: Mapping[str, object], reader: str) -> Iterator[tuple[str, str]]:
    """Find the prompt in a JSON object by the names that programs use for it.

    Parameters
    ----------
    value : mapping
    reader : str
        The program, as far as the place of the object tells.
    """
    for key, program in (
        ("sui_image_params", "swarmui"),
        ("extraMetadata", "civitai"),
        ("Comment", "novelai"),
    ):
        inner = value.get(key)
        inner = _json(inner) if isinstance(inner, str) else inner
        if isinstance(inner, dict):
            yield from _text(inner.get("prompt"), program)
    software = str(value.get("software", value.get("version", ""))).lower()
    reader = "fooocus" if "fooocus" in software else reader
    prompt = value.get("prompt")
    graph = _json(prompt) if isinstance(prompt, str) and prompt.lstrip().startswith("{") else prompt
    if isinstance(graph, dict):
        yield from _text(positive_prompt(graph, value.get("workflow")), "comfyui")
    else:
        yield from _text(prompt, "fooocus" if reader == "fooocus" or "base_model" in value else reader)
    if any(isinstance(node, dict) and "class_type" in node for node in value.values()):
        yield from _text(positive_prompt(value), "comfyui")
    for key in ("Prompt", "positive_prompt", "positivePrompt"):
        yield from _text(value.get(key), reader)
    if "uc" in value:
        yield from _text(value.get("c"), "drawthings")


def _text(value: object, reader: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value.strip():
        yield reader, value


def _midjourney(text: str) -> Iterator[tuple[str, str]]:
    """Read a description by Midjourney: the prompt, its flags, and the id of the job."""
    job = _JOB_ID.search(text)
    flags = FLAGS.search(text)
    if job or flags:
        yield "midjourney", FLAGS.sub("", _JOB_ID.sub("", text))


_INVOKEAI: dict[str, Callable[[Mapping[str, object]], object]] = {
    "invokeai_metadata": invokeai.metadata,
    "sd-metadata": invokeai.sd_metadata,
    "invokeai_graph": invokeai.graph,
}


def _json(text: str) -> object:
    try:
        return json.loads(text.strip("\0 \r\n\t"))
    except (ValueError, RecursionError):
        return None
