"""Nodes that make one text of several: those that join, and those that replace words."""

from __future__ import annotations

import re
from collections.abc import Callable

from img2prompt_cache.sources.comfyui import edits, kinds
from img2prompt_cache.sources.comfyui.graph import Node
from img2prompt_cache.sources.comfyui.inputs import Reader, chosen, holding, in_order

_JOINS = re.compile(r"concat|join|append|combin|merge", re.IGNORECASE)
_REPLACES = re.compile(r"replace", re.IGNORECASE)
_BETWEEN = ("delimiter", "separator", "join_with", "seperator", "joiner", "delim")
_PART = re.compile(
    r"^(?:(?:text|string|str|prompt|part|input|value|line|body)s?_?(?:\d{1,4}|[a-h])?|[a-h]|"
    r"(?:input_)?(?:text|string)_?\w?)$",
    re.IGNORECASE,
)
_OLD = re.compile(
    r"^(?:find|old|search|from|target|pattern|regex_pattern|substring)\w{0,8}?_?(\d?)$", re.IGNORECASE
)
_NEW = ("replace", "new", "replacement", "replace_with", "to", "replace_", "new_", "replacement_")
_MOST_PAIRS = 16

Operation = Callable[[Node, Reader, Callable[[object], bool]], str | None]


def operation(node: Node) -> Operation | None:
    """Tell what a node does to its texts; None if it holds one, or hands one on."""
    if node.kind.startswith("StringFunction"):
        return _function
    if _REPLACES.search(node.kind):
        return _replaced
    if _JOINS.search(node.kind) or any(isinstance(node.inputs.get(key), str) for key in _BETWEEN):
        return _joined
    return None


def _function(node: Node, of: Reader, _: Callable[[object], bool]) -> str | None:
    """Do what pythongosssss' StringFunction does; its `result` is of the run before."""
    parts = [of(node.inputs.get(key)) for key in ("text_a", "text_b", "text_c")]
    first, second, third = (part or "" for part in parts)
    if None in parts:
        return None
    tidy = node.inputs.get("tidy_tags") == "yes"
    text: str | None
    if node.inputs.get("action") != "replace":
        text = edits.join((first, second, third), ", " if tidy else "")
    elif len(second) > 1 and second.startswith("/") and second.endswith("/"):
        text = edits.replace_pattern(first, second[1:-1], third)
    else:
        text = edits.replace(first, second, third)
    return edits.tidied(text) if tidy and text is not None else text


def _replaced(node: Node, of: Reader, linked: Callable[[object], bool]) -> str | None:
    pairs: list[tuple[str, str | None]] = []
    for key in node.inputs:
        match = _OLD.search(key)
        if match:
            new = next((name + match[1] for name in _NEW if name + match[1] in node.inputs), None)
            pairs.append((key, new))
    without = {name for pair in pairs for name in pair if name is not None}
    text = chosen(holding(node, linked, without), 0, "", of)
    for key, new in pairs[:_MOST_PAIRS]:
        old, other = of(node.inputs[key]), of(node.inputs[new]) if new is not None else ""
        if text is None or old is None or other is None:
            return None
        pattern = "regex" in key.lower() or "regex" in node.kind.lower()
        text = edits.replace_pattern(text, old, other) if pattern else edits.replace(text, old, other)
    return text


def _joined(node: Node, of: Reader, linked: Callable[[object], bool]) -> str | None:
    between = next((node.inputs[key] for key in _BETWEEN if key in node.inputs), " ")
    if "linebreak_addition" in node.inputs:  # of WAS's node before it had a delimiter
        between = "\n" if node.inputs["linebreak_addition"] == "true" else ""
    if isinstance(between, list):
        between = of(between)
    clean = node.inputs.get("clean_whitespace") in (True, "true")
    keys = [key for key in node.inputs if key not in _BETWEEN and not kinds.is_negative(key)]
    keys = in_order([key for key in keys if _PART.search(key) or kinds.is_positive(key)])
    parts: list[str] = []
    for key in keys:
        part = of(node.inputs[key])
        if part is None:
            return None
        parts.append(part.strip() if clean else part)
    return edits.join(parts, between) if parts else chosen(holding(node, linked), 0, "", of)
