"""Switches: nodes of which only one input ran."""

from __future__ import annotations

import re

from img2prompt_cache.sources.comfyui.graph import Graph, Node

_SWITCH = re.compile(
    r"switch|if ?else|conditional ?branch|mux(?:er)?\d*$|ternary|\bif\b|choose|selector$", re.IGNORECASE
)
_NO_SWITCH = re.compile(r"invers|style|lora|font|model|string ?selector|number|\bfrom\b", re.IGNORECASE)
_FIRST = re.compile(r"any ?switch|context switch|first|fallback", re.IGNORECASE)
_SELECTORS = (
    *(
        "select",
        "switch",
        "boolean",
        "boolean_number",
        "bool",
        "condition",
        "cond",
        "index",
        "Input",
        "input",
    ),
    *(
        "input_selector",
        "selector",
        "selected",
        "selection",
        "choice",
        "which",
        "value",
        "sel",
        "flag",
        "enabled",
    ),
)
_YES = re.compile(r"(?:^|_)(?:on_|if_)?(?:true|yes|tt_value|on)$|^tt_", re.IGNORECASE)
_NO = re.compile(r"(?:^|_)(?:on_|if_)?(?:false|no|ff_value|off|else)$|^ff_", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)$")
_LETTER = re.compile(r"(?:^|_|\d)([a-h])$", re.IGNORECASE)
_SCALARS = ("value", "boolean", "bool", "int", "number", "Number", "Value")
_LONGEST_WAY = 20
_LONGEST_CHOICE = 40


def is_switch(node: Node) -> bool:
    """Tell whether a node hands on one of its inputs."""
    return _SWITCH.search(node.kind) is not None and not _NO_SWITCH.search(node.kind)


def chosen(graph: Graph, name: str) -> tuple[list[str], bool]:
    """Tell which inputs of a switch may have run.

    Returns
    -------
    list of str
        Names of inputs, the one that ran first.
    bool
        Whether it is known that the first one ran; if not, any of them may have.
    """
    node = graph.nodes[name]
    keys = [
        key for key, value in node.inputs.items() if isinstance(value, str) or graph.link(value) is not None
    ]
    if _FIRST.search(node.kind):
        return [key for key in keys if graph.link(node.inputs[key]) is not None], True
    selector = next((key for key in _SELECTORS if key in node.inputs and _may_select(graph, node, key)), None)
    if selector is None:
        selector = next((key for key, value in node.inputs.items() if isinstance(value, bool | int)), None)
    options = [key for key in keys if key != selector and _is_option(key)] or [
        key for key in keys if key != selector
    ]
    choice = scalar(graph, node.inputs[selector]) if selector is not None else None
    if choice is None:
        return options, len(options) == 1
    picked = _pick(options, choice)
    if picked is None:
        return [], True
    return [picked, *[key for key in options if key != picked]], True


def scalar(graph: Graph, value: object, depth: int = 0) -> bool | int | str | None:
    """Evaluate a number, a truth or a short word; None if it is not in the file."""
    link = graph.link(value)
    if link is None:
        return value if isinstance(value, bool | int | str) else None
    node = graph.nodes[link[0]]
    if depth > _LONGEST_WAY or not graph.visit(link[0]):
        return None
    found = next((node.inputs[key] for key in _SCALARS if key in node.inputs), None)
    if found is None and len(node.inputs) == 1:
        found = next(iter(node.inputs.values()))
    inner = scalar(graph, found, depth + 1)
    if re.search(r"invert|\bnot\b", node.kind, re.IGNORECASE):
        return None if inner is None else not inner
    plain = re.search(r"primitive|const|int|bool|number|value|reroute|toggle", node.kind, re.IGNORECASE)
    return inner if plain else None


def _may_select(graph: Graph, node: Node, key: str) -> bool:
    choice = scalar(graph, node.inputs[key])
    return choice is not None and (not isinstance(choice, str) or len(choice) <= _LONGEST_CHOICE)


def _is_option(key: str) -> bool:
    return any(pattern.search(key) for pattern in (_YES, _NO, _NUMBER, _LETTER))


def _pick(options: list[str], choice: bool | int | str) -> str | None:
    """Choose an option by its name; None if what was chosen is not connected."""
    if isinstance(choice, str):
        lowered = choice.strip().lower()
        if lowered in ("true", "on", "yes"):
            choice = True
        elif lowered in ("false", "off", "no"):
            choice = False
        else:
            exact = next((key for key in options if key.lower() == lowered), None)
            digits = _NUMBER.search(lowered)
            if exact is not None or digits is None or len(digits[1]) > 4:
                return exact
            choice = int(digits[1])
    ways = [[key for key in options if pattern.search(key)] for pattern in (_YES, _NO)]
    if any(ways):
        return next(iter(ways[0 if choice else 1]), None)
    numbered = {int(match[1][-6:]): key for key in options if (match := _NUMBER.search(key))}
    if numbered:
        return numbered.get(int(choice))
    lettered = {match[1].lower(): key for key in options if (match := _LETTER.search(key))}
    # Two inputs, a and b, and a truth: a where it is true.
    place = (0 if choice else 1) if isinstance(choice, bool) or choice == 0 else int(choice) - 1
    return lettered.get("abcdefgh"[place]) if 0 <= place < 8 else None
