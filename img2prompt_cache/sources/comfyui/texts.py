"""The text that an output of a node gives."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from img2prompt_cache.sources.comfyui import edits, kinds, switches
from img2prompt_cache.sources.comfyui.graph import Graph, Link, Node
from img2prompt_cache.sources.comfyui.reading import Found

_ONE = (
    *("populated_text", "text", "string", "value", "prompt", "positive_prompt", "user_prompt", "prompt_text"),
    *("str", "source", "wildcard_text", "wildcard_prompt", "main_prompt", "text_input", "input", "anything"),
    *("any", "any_value", "multiline_text", "input_text", "input_string", "text_positive"),
)
"""Inputs that hold the text of a node, the first that is there."""
_MANY = (
    *(
        "t5xxl",
        "text_g",
        "text_l",
        "clip_l",
        "clip_g",
        "llama",
        "bert",
        "mt5xl",
        "qwen25_7b",
        "gemma",
        "byt5",
    ),
    *("prompt_g", "prompt_l", "text_positive_g", "text_positive_l", "text_pos_g", "text_pos_l"),
)
"""Inputs that hold the text of a node for one encoder each."""
_BEFORE = re.compile(
    r"^(?:pre_text|prepend_(?:text|positive)|prefix(?:_text)?|text_prefix|pre_text_g)$", re.IGNORECASE
)
_AFTER = re.compile(
    r"^(?:app_text|append_text|suffix(?:_text)?|text_suffix|postfix|app_text_g)$", re.IGNORECASE
)

_JOINS = re.compile(r"concat|join|append|combin|merge|string ?function", re.IGNORECASE)
_REPLACES = re.compile(r"replace", re.IGNORECASE)
_BETWEEN = ("delimiter", "separator", "join_with", "seperator", "joiner", "delim")
_PART = re.compile(
    r"^(?:(?:text|string|str|prompt|part|input|value|line|body)s?_?(?:\d{1,4}|[a-h])?|[a-h]|(?:input_)?(?:text|string)_?\w?)$",
    re.IGNORECASE,
)
_SERIES = re.compile(r"^(?:text|string|str|prompt|input)s?_?(?:\d{1,4}|[a-h])?$", re.IGNORECASE)
_OLD = re.compile(
    r"^(?:find|old|search|from|target|pattern|regex_pattern|substring)\w{0,8}?_?(\d?)$", re.IGNORECASE
)
_NEW = (
    "replace{}",
    "new{}",
    "replacement{}",
    "replace_with{}",
    "to{}",
    "replace_{}",
    "new_{}",
    "replacement_{}",
)

_PLACEHOLDERS = frozenset(("undefined", "Positive", "Negative"))
"""What nodes of pythongosssss' and Easy-Use keep where nothing is connected or written."""


@dataclass(slots=True)
class Texts:
    """Reads texts of one graph.

    A text is None where it is not in the file: a model wrote it, or it cannot be told which input ran.
    It is empty where a node adds words that are not in the file, such as those of a style's list.
    """

    graph: Graph
    found: Found[str | None] = field(default_factory=lambda: Found(""))
    beside: dict[Link, list[tuple[str, str | None]]] | None = None

    def at(self, link: Link, meaning: str = "") -> str | None:
        """Give the text of an output.

        Parameters
        ----------
        link : tuple of str and int
        meaning : str, optional
            `kinds.NEGATIVE` for the negative one where nothing tells which the output is.
        """
        name, output = link
        return self.found.at(self.graph, (name, output, meaning), lambda: self._read(link, meaning))

    def of(self, value: object) -> str | None:
        """Give the text of an input: its value, or what it is linked to; empty if it is none."""
        if isinstance(value, str):
            return "" if value in _PLACEHOLDERS else value
        link = self.graph.link(value)
        return "" if link is None else self.at(link)

    def written(self, name: str) -> str | None:
        """Give the text that a node itself holds or is linked to, whatever its outputs are."""
        node = self.graph.nodes[name]
        held = {key: node.inputs[key] for key in (*_ONE, *_MANY) if key in node.inputs}
        return self._chosen(Node(node.kind, held), -1, "")

    def _read(self, link: Link, meaning: str) -> str | None:
        name, output = link
        node = self.graph.nodes[name]
        text = self._shown(name, node) if kinds.SHOWS.search(node.kind) else self._made(name, output, meaning)
        if text is not None and not edits.is_template(text):
            return text if self.graph.spend(len(text) // 10) else None
        # What a node came to may be shown by another on the same link.
        for shown, last in self._shown_beside().get(link, ()):
            if shown:
                return shown
            if text is not None and last and edits.may_come_from(last, text):
                return last
        return text

    def _shown(self, name: str, node: Node) -> str | None:
        """Give what a node showed in this run, else what leads to it; its own input is of the run before."""
        if name in self.graph.shown:
            return self.graph.shown[name]
        link = next((link for key, link in self.graph.links(name) if not kinds.OTHER.search(key)), None)
        return self._made(name, 0, "") if link is None else self.at(link)

    def _shown_beside(self) -> dict[Link, list[tuple[str, str | None]]]:
        if self.beside is None:
            self.beside = {}
            for name, node in self.graph.nodes.items():
                if kinds.KEEPS_SHOWN.search(node.kind):
                    last = node.inputs.get("text_0")
                    for _, link in self.graph.links(name):
                        shown = self.graph.shown.get(name, "")
                        self.beside.setdefault(link, []).append(
                            (shown, last if isinstance(last, str) else None)
                        )
        return self.beside

    def _made(self, name: str, output: int, meaning: str) -> str | None:
        node = self.graph.nodes[name]
        if switches.is_switch(node):
            return self._switched(name)
        source = kinds.known_source(node, output)
        if not source:
            if kinds.writes(node):
                return None
            if node.kind.startswith("StringFunction"):
                return self._function(node)
            if _REPLACES.search(node.kind):
                return self._replaced(node)
            if _JOINS.search(node.kind) or any(isinstance(node.inputs.get(key), str) for key in _BETWEEN):
                return self._joined(node)
            source = kinds.told_source(node, output) or meaning
        text = self._chosen(node, output, source)
        if text and kinds.PICKS.search(node.kind) and edits.has_lines(text):
            return None
        if text and "Schedule" in node.kind:
            return edits.first_keyframe(text)
        return edits.changed(node.kind, node.inputs, text)

    def _switched(self, name: str) -> str | None:
        options, sure = switches.chosen(self.graph, name)
        inputs = self.graph.nodes[name].inputs
        if sure:
            # Where a model wrote the text of the input that ran, the other one is often what it was given.
            texts = (self.of(inputs[key]) for key in options[:8])
            return next((text for text in texts if text is not None), None)
        different = {text for key in options[:8] if (text := self.of(inputs[key])) != ""}
        return different.pop() if len(different) == 1 else None if different else ""

    def _function(self, node: Node) -> str | None:
        parts = [self.of(node.inputs.get(key)) for key in ("text_a", "text_b", "text_c")]
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

    def _replaced(self, node: Node) -> str | None:
        pairs = []
        for key in node.inputs:
            match = _OLD.search(key)
            if match:
                new = next((name for form in _NEW if (name := form.format(match[1])) in node.inputs), None)
                pairs.append((key, new))
        text = self._chosen(
            node, 0, "", without={name for pair in pairs for name in pair if name is not None}
        )
        for key, new in pairs[:16]:
            old, other = self.of(node.inputs[key]), self.of(node.inputs.get(new)) if new else ""
            if text is None or old is None or other is None:
                return None
            pattern = "regex" in key.lower() or "regex" in node.kind.lower()
            text = edits.replace_pattern(text, old, other) if pattern else edits.replace(text, old, other)
        return text

    def _joined(self, node: Node) -> str | None:
        between = next((node.inputs[key] for key in _BETWEEN if key in node.inputs), " ")
        if "linebreak_addition" in node.inputs:  # of WAS's node before it had a delimiter
            between = "\n" if node.inputs["linebreak_addition"] == "true" else ""
        if isinstance(between, list):
            between = self.of(between)
        parts = []
        for key, value in node.inputs.items():
            if (
                key not in _BETWEEN
                and not kinds.is_negative(key)
                and (_PART.search(key) or kinds.is_positive(key))
            ):
                part = self.of(value)
                if part is None:
                    return None
                parts.append(part.strip() if node.inputs.get("clean_whitespace") in (True, "true") else part)
        if not parts:
            return self._chosen(node, 0, "")
        return edits.join(parts, between) if self.graph.spend(sum(map(len, parts))) else None

    def _chosen(self, node: Node, output: int, source: str, without: set[str] | None = None) -> str | None:
        """Give the text of the input that an output is made of."""
        inputs = {
            key: value
            for key, value in node.inputs.items()
            if (isinstance(value, str) or self.graph.link(value) is not None) and key not in (without or ())
        }
        if source == kinds.NEGATIVE:
            return self._all(inputs, [key for key in inputs if kinds.is_negative(key)])
        if source in inputs:
            return self._wrapped(inputs, self.of(inputs[source]))
        inputs = {key: value for key, value in inputs.items() if not kinds.is_negative(key)}
        series = [key for key in inputs if _SERIES.search(key)]
        if not source and 0 < output < len(series) and "populated_text" not in inputs:
            return self.of(inputs[series[output]])
        stated = [key for key in inputs if kinds.is_positive(key) and not kinds.is_refiner(key)]
        populated = [key for key in stated if "populated" in key]
        if stated and "populated_text" not in inputs:
            return self._wrapped(inputs, self._all(inputs, populated or stated))
        ones: list[str] = [] if inputs.get("with_SDXL") is True else [key for key in _ONE if key in inputs]
        for key in ones:
            text = self.of(inputs[key])
            if text is None or text.strip():
                return self._wrapped(inputs, text)
        text = self._all(inputs, [key for key in _MANY if key in inputs])
        if text is None or text:
            return self._wrapped(inputs, text)
        for key in series[:1] or [key for key in inputs if self._may_lead(inputs, key)][:4]:
            text = self.of(inputs[key])
            if text is None or text.strip():
                return text
        return ""

    def _may_lead(self, inputs: dict[str, object], key: str) -> bool:
        return self.graph.link(inputs[key]) is not None and not kinds.OTHER.search(key)

    def _all(self, inputs: dict[str, object], keys: list[str]) -> str | None:
        texts = [self.of(inputs[key]) for key in keys[:16]]
        return None if None in texts else edits.together([text or "" for text in texts])

    def _wrapped(self, inputs: dict[str, object], text: str | None) -> str | None:
        """Put the words before and after a text that a node has inputs for."""
        if not text:
            return text
        text = edits.first_keyframe(text) if text.lstrip().startswith('"0"') else text
        before = [self.of(value) for key, value in inputs.items() if _BEFORE.search(key)]
        after = [self.of(value) for key, value in inputs.items() if _AFTER.search(key)]
        if not before and not after:
            return text
        return edits.join([*(part or "" for part in before), text, *(part or "" for part in after)], " ")
