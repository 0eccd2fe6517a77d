"""Prompts in images by InvokeAI, versions 1 to 5."""

from __future__ import annotations

import re
from collections.abc import Mapping

_DREAM = re.compile(r'\s*"((?:[^"\\]|\\.)*)"')
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_MOST_STEPS = 200
"""Largest number of edges between the conditioning and its text in a graph."""
_TEXT_FIELDS = ("prompt", "value", "text", "string")
_PASSED_ON = ("item", "collection", "conditioning")


def metadata(value: Mapping[str, object]) -> object:
    """Return ``positive_prompt`` of `invokeai_metadata`, version 3 and later."""
    return value.get("positive_prompt")


def sd_metadata(value: Mapping[str, object]) -> object:
    """Return the prompt of `sd-metadata`, version 2, without the negative prompt in square brackets."""
    image = value.get("image")
    prompt = image.get("prompt") if isinstance(image, dict) else None
    if isinstance(prompt, list):
        parts = [part.get("prompt") for part in prompt if isinstance(part, dict)]
        prompt = " ".join(part for part in parts if isinstance(part, str))
    return _BRACKETS.sub("", prompt) if isinstance(prompt, str) else None


def dream(text: str) -> str | None:
    """Return the prompt of `Dream`, the command line of versions 1 and 2: the text in quotes."""
    quoted = _DREAM.match(text)
    if quoted is None:
        return None
    return _BRACKETS.sub("", quoted.group(1).replace('\\"', '"'))


def graph(value: Mapping[str, object]) -> str | None:
    """Return the prompt of `invokeai_graph`: the text that is linked to ``positive_conditioning``."""
    nodes, edges = value.get("nodes"), value.get("edges")
    if not isinstance(nodes, dict) or not isinstance(edges, list):
        return None
    sources: dict[tuple[str, str], str] = {}
    for edge in edges:
        if not isinstance(edge, dict):
            continue
        start, end = edge.get("source"), edge.get("destination")
        if isinstance(start, dict) and isinstance(end, dict):
            sources.setdefault((str(end.get("node_id")), str(end.get("field"))), str(start.get("node_id")))
    for (_, field), start in sources.items():
        if field == "positive_conditioning":
            text = _text_behind(start, nodes, sources)
            if text:
                return text
    return None


def _text_behind(
    name: str, nodes: Mapping[str, object], sources: Mapping[tuple[str, str], str]
) -> str | None:
    """Follow the links of a node to the text that it encodes."""
    for _ in range(_MOST_STEPS):
        node = nodes.get(name)
        linked = [sources[name, field] for field in _TEXT_FIELDS if (name, field) in sources]
        if not linked:
            values = node if isinstance(node, dict) else {}
            text = next((values[field] for field in _TEXT_FIELDS if isinstance(values.get(field), str)), "")
            if text.strip():
                return str(text)
            linked = [sources[name, field] for field in _PASSED_ON if (name, field) in sources]
        if not linked:
            return None
        name = linked[0]
    return None
