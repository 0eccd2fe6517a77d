"""The positive prompt of a ComfyUI graph, as its API format keeps it.

A graph maps a node's id to ``{"class_type", "inputs"}``; an input is a value or a link ``[id, output]``. From
the node that saves the image the links are followed upwards, level by level, to the nearest sampler (of a
chain that refines an image, the last), then along its positive conditioning to the text encoders. Nodes are
told by the names of their inputs, so nodes of extensions are found too. Several texts are joined with a
comma; one that is part of another is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Node = tuple[str, dict[str, object]]
"""Class and inputs."""

LONGEST_CHAIN = 200
"""Nodes between a sampler and its text; a graph nests no deeper, a hostile one is cut here."""
MOST_TEXTS = 64
"""Texts that are joined; each is compared with all others."""
MOST_INPUTS = 100_000
"""Inputs looked at in vain, over all samplers; a hostile graph has every one lead to all of its nodes."""
LONGEST_DELIMITER = 16
"""Characters between texts; a long one repeated would make gigabytes of a small graph."""

_SAVES = re.compile(r"save|preview|output|combine", re.IGNORECASE)
_GUIDED = ("positive", "guider")
_ENCODED = ("text", "prompt", "positive", "t5xxl", "text_g", "text_l", "clip_l", "clip_g", "llama")
_CONDITIONING = re.compile(r"^(conditioning|cond($|1)|positive|guider)", re.IGNORECASE)
_OTHER_KINDS = re.compile(
    r"^(negative|cond2|uncond|(base_|refiner_)?(model|clip|vae)|control_?net|image|pixels|mask|latent|samples|"
    r"stage_c|clip_vision|style_model|noise|sampler|sigmas|seed|steps|lora)",
    re.IGNORECASE,
)
_STRING = re.compile(r"^(text|string|str|value|prompt|positive|populated_text|input|a$|b$)", re.IGNORECASE)


def positive_prompt(graph: object) -> str | None:
    """Find the positive prompt.

    Parameters
    ----------
    graph : object
        The parsed JSON; anything that is no graph gives None.

    Returns
    -------
    str or None
        None if no sampler leads to a text.
    """
    nodes = _nodes(graph)
    upwards = list(_upwards(nodes, _ends(nodes)))
    left = MOST_INPUTS
    for wanted in (_GUIDED, ("prompt",)):
        for name in upwards:
            if left > 0 and any(key in nodes[name][1] for key in wanted):
                seen: set[str] = set()
                prompt = _join(_texts(nodes, name, seen, 0))
                if prompt:
                    return prompt
                left -= sum(len(nodes[other][1]) for other in seen)
    return None


def _nodes(graph: object) -> dict[str, Node]:
    if not isinstance(graph, dict):
        return {}
    nodes = {}
    for name, node in graph.items():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if isinstance(inputs, dict):
            nodes[str(name)] = (str(node.get("class_type", "")), inputs)
    return nodes


def _link(nodes: dict[str, Node], value: object) -> str | None:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
        return str(value[0]) if str(value[0]) in nodes and isinstance(value[1], int) else None
    return None


def _links(nodes: dict[str, Node], name: str) -> list[str]:
    found = (_link(nodes, value) for value in nodes[name][1].values())
    return [link for link in found if link is not None]


def _ends(nodes: dict[str, Node]) -> list[str]:
    """Name the nodes that nothing is linked to: those that save an image, then the rest."""
    used = {link for name in nodes for link in _links(nodes, name)}
    ends = [name for name in nodes if name not in used] or list(nodes)
    return sorted(ends, key=lambda name: not _SAVES.search(nodes[name][0]))


def _upwards(nodes: dict[str, Node], ends: list[str]) -> Iterator[str]:
    """Walk from each end upwards, level by level; every node once."""
    seen: set[str] = set()
    for end in ends:
        level = [end]
        while level:
            level = [name for name in dict.fromkeys(level) if name not in seen]
            seen.update(level)
            yield from level
            level = [link for name in level for link in _links(nodes, name)]


def _texts(nodes: dict[str, Node], name: str, seen: set[str], depth: int) -> list[str]:
    """Follow conditioning upwards from a node to the texts it was encoded from."""
    kind, inputs = nodes[name]
    if name in seen or depth > LONGEST_CHAIN or "ZeroOut" in kind:
        return []
    seen.add(name)
    texts = []
    for key in _ENCODED:
        value = inputs.get(key)
        if isinstance(value, str):
            texts.append(value)
        elif key != "positive" and (link := _link(nodes, value)) is not None:
            texts.append(_string(nodes, link, seen, depth + 1))
    if any(text.strip() for text in texts):
        return texts
    links = {key: link for key, value in inputs.items() if (link := _link(nodes, value)) is not None}
    ahead = [link for key, link in links.items() if _CONDITIONING.search(key)] or [
        link for key, link in links.items() if not _OTHER_KINDS.search(key)
    ]
    return [text for link in ahead for text in _texts(nodes, link, seen, depth + 1)]


def _string(nodes: dict[str, Node], name: str, seen: set[str], depth: int) -> str:
    """Evaluate a node that gives a string: a constant, or a concatenation of others."""
    if name in seen or depth > LONGEST_CHAIN:
        return ""
    seen.add(name)
    inputs = nodes[name][1]
    populated = inputs.get("populated_text")
    if isinstance(populated, str):
        return populated
    parts = []
    for key, value in inputs.items():
        link = _link(nodes, value)
        if link is not None and not _OTHER_KINDS.search(key):
            parts.append(_string(nodes, link, seen, depth + 1))
        elif isinstance(value, str) and _STRING.search(key):
            parts.append(value)
    delimiter = inputs.get("delimiter", inputs.get("separator", " "))
    fits = isinstance(delimiter, str) and len(delimiter) <= LONGEST_DELIMITER
    return (str(delimiter) if fits else " ").join(part for part in parts if part)


def _join(texts: list[str]) -> str:
    stripped = list(dict.fromkeys(text.strip() for text in texts))[:MOST_TEXTS]
    return ", ".join(
        text for text in stripped if text and not any(text in other and text != other for other in stripped)
    )
