"""The text that an output of a node gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from img2prompt_cache.sources.comfyui import edits, inputs, kinds, switches
from img2prompt_cache.sources.comfyui.graph import Graph, Link, Node
from img2prompt_cache.sources.comfyui.operations import operation
from img2prompt_cache.sources.comfyui.reading import Found

_HELD = frozenset((*inputs.ONE, *inputs.MANY))
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
        place = (*link, meaning)
        if self.found.begin(self.graph, place):
            self.found.finish(self.graph, place, self._read(link, meaning))
        return self.found.get(place)

    def of(self, value: object) -> str | None:
        """Give the text of an input: its value, or what it is linked to; empty if it is none."""
        if isinstance(value, str):
            return "" if value in _PLACEHOLDERS else value
        link = self.graph.link(value)
        return "" if link is None else self.at(link)

    def written(self, name: str) -> str | None:
        """Give the text that a node itself holds or is linked to, whatever its outputs are."""
        node = self.graph.nodes[name]
        held = {key: value for key, value in self._holding(node).items() if key in _HELD}
        return inputs.chosen(held, -1, "", self.of)

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
            do = operation(node)
            if do is not None:
                text = do(node, self.of, self._is_link)
                return text if self.graph.spend(len(text or "")) else None
            source = kinds.told_source(node, output) or meaning
        text = inputs.chosen(self._holding(node), output, source, self.of)
        if text and kinds.PICKS.search(node.kind) and edits.has_lines(text):
            return None
        if text and "Schedule" in node.kind:
            return edits.first_keyframe(text)
        return edits.changed(node.kind, node.inputs, text)

    def _switched(self, name: str) -> str | None:
        options, sure = switches.chosen(self.graph, name)
        held = self.graph.nodes[name].inputs
        if sure:
            # Where a model wrote the text of the input that ran, the other one is often what it was given.
            texts = (self.of(held[key]) for key in options[:8])
            return next((text for text in texts if text is not None), None)
        different = {text for key in options[:8] if (text := self.of(held[key])) != ""}
        return different.pop() if len(different) == 1 else None if different else ""

    def _holding(self, node: Node) -> dict[str, object]:
        held = inputs.holding(node, self._is_link)
        if node.inputs.get("with_SDXL") is True:  # of smZ's encoder, which has inputs for both
            held.pop("text", None)
        return held

    def _is_link(self, value: object) -> bool:
        return self.graph.link(value) is not None
