"""The inputs of a node that hold its text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from img2prompt_cache.sources.comfyui import edits, kinds
from img2prompt_cache.sources.comfyui.graph import Node

Inputs = Mapping[str, object]
"""Inputs that hold a text, or a link to a node that is there."""
Reader = Callable[[object], str | None]
"""Gives the text of an input; None if it is not in the file."""

ONE = (
    *("populated_text", "text", "string", "value", "prompt", "positive_prompt", "user_prompt", "prompt_text"),
    *("str", "source", "wildcard_text", "wildcard_prompt", "main_prompt", "text_input", "input", "anything"),
    *("any", "any_value", "multiline_text", "input_text", "input_string", "text_positive"),
)
"""Inputs that hold the text of a node, the first that is there."""
MANY = (
    *("t5xxl", "text_g", "text_l", "clip_l", "clip_g", "llama", "bert", "mt5xl", "qwen25_7b", "gemma"),
    *("byt5", "prompt_g", "prompt_l", "text_positive_g", "text_positive_l", "text_pos_g", "text_pos_l"),
)
"""Inputs that hold the text of a node for one encoder each."""

_BEFORE = re.compile(
    r"^(?:pre_text|prepend_(?:text|positive)|(?:text_)?prefix(?:_text)?|pre_text_g)$", re.IGNORECASE
)
_AFTER = re.compile(
    r"^(?:app_text|append_text|(?:text_)?suffix(?:_text)?|postfix|app_text_g)$", re.IGNORECASE
)
_SERIES = re.compile(r"^(?:text|string|str|prompt|input)s?_?(?:\d{1,4}|[a-h])?$", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:^|_)([a-z])$|_?(\d+)$", re.IGNORECASE)
_HELD = re.compile(r"text|prompt|string|caption|content|words|tags|default_value|description", re.IGNORECASE)


def holding(node: Node, linked: Callable[[object], bool], without: Collection[str] = ()) -> dict[str, object]:
    """Give the inputs of a node that hold a text or a link."""
    return {
        key: value
        for key, value in node.inputs.items()
        if key not in without and (isinstance(value, str) or linked(value))
    }


def chosen(inputs: Inputs, output: int, source: str, of: Reader) -> str | None:
    """Give the text of the input that an output of a node is made of.

    Parameters
    ----------
    inputs : mapping
        See `holding`.
    output : int
    source : str
        Name of the input, or the meaning, as far as it is known; else empty.
    of : callable
    """
    if source == kinds.NEGATIVE:
        return _together(inputs, [key for key in inputs if kinds.is_negative(key)], of)
    if source in inputs:
        return _wrapped(inputs, of(inputs[source]), of)
    inputs = {key: value for key, value in inputs.items() if not kinds.is_negative(key)}
    series = in_order([key for key in inputs if _SERIES.search(key)])
    if not source and 0 < output < len(series) and "populated_text" not in inputs:
        return of(inputs[series[output]])
    stated = [key for key in inputs if kinds.is_positive(key) and not kinds.is_refiner(key)]
    if stated and "populated_text" not in inputs:
        populated = [key for key in stated if "populated" in key]
        return _wrapped(inputs, _together(inputs, populated or stated, of), of)
    for key in ONE:
        text = of(inputs[key]) if key in inputs else ""
        if text is None or text.strip():
            return _wrapped(inputs, text, of)
    text = _together(inputs, [key for key in MANY if key in inputs], of)
    if text is None or text:
        return _wrapped(inputs, text, of)
    for key in (series[:1] or [key for key, value in inputs.items() if _may_hold(key, value)])[:4]:
        text = of(inputs[key])
        if text is None or text.strip():
            return text
    return ""


def in_order(keys: list[str]) -> list[str]:
    """Sort inputs of one series by number or letter: in a graph, values stand before links."""
    stems = {_SUFFIX.sub("", key) for key in keys}
    if len(stems) != 1:
        return keys

    def place(key: str) -> tuple[int, str]:
        suffix = _SUFFIX.search(key)
        ending = (suffix[1] or suffix[2]).lower() if suffix else ""
        return len(ending), ending

    return sorted(keys, key=place)


def _may_hold(key: str, value: object) -> bool:
    if kinds.OTHER.search(key):
        return False
    return not isinstance(value, str) or (_HELD.search(key) is not None and " " in value.strip())


def _together(inputs: Inputs, keys: list[str], of: Reader) -> str | None:
    texts = [of(inputs[key]) for key in keys[:16]]
    return None if None in texts else edits.together([text or "" for text in texts])


def _wrapped(inputs: Inputs, text: str | None, of: Reader) -> str | None:
    """Put the words before and after a text that a node has inputs for."""
    if not text:
        return text
    text = edits.first_keyframe(text) if text.lstrip().startswith('"0"') else text
    before = [of(value) or "" for key, value in inputs.items() if _BEFORE.search(key)]
    after = [of(value) or "" for key, value in inputs.items() if _AFTER.search(key)]
    return edits.join([*before, text, *after], " ") if before or after else text
