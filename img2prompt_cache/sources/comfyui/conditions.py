"""The texts that conditioning was encoded from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from img2prompt_cache.sources.comfyui import edits, kinds, switches
from img2prompt_cache.sources.comfyui.graph import Graph, Link, Node
from img2prompt_cache.sources.comfyui.reading import Found
from img2prompt_cache.sources.comfyui.texts import Texts

Prompt = tuple[str, ...] | None
"""Texts that were encoded one beside the other; None where one of them is not in the file."""

_AVERAGES = re.compile(r"Average|Mixer", re.IGNORECASE)


@dataclass(slots=True)
class Conditions:
    """Follows the conditioning of one graph to its texts."""

    graph: Graph
    texts: Texts
    found: Found[Prompt] = field(default_factory=lambda: Found(()))

    def at(self, link: Link, meaning: str = kinds.POSITIVE) -> Prompt:
        """Give the texts of an output.

        Parameters
        ----------
        link : tuple of str and int
        meaning : str
            `kinds.POSITIVE` or `kinds.NEGATIVE`: which is wanted of a node that carries both.
        """
        place = (*link, meaning)
        if self.found.begin(self.graph, place):
            self.found.finish(self.graph, place, self._read(link, meaning))
        return self.found.get(place)

    def _read(self, link: Link, meaning: str) -> Prompt:
        name, output = link
        node = self.graph.nodes[name]
        if kinds.ZEROED.search(node.kind):
            return ()
        if switches.is_switch(node):
            return self._switched(name, meaning)
        source = kinds.known_source(node, output) or kinds.told_source(node, output)
        if source in (kinds.POSITIVE, kinds.NEGATIVE):
            meaning = source
        links = {
            key: link
            for key, link in self.graph.links(name)
            if kinds.is_negative(key) == (meaning == kinds.NEGATIVE)
        }
        ways = [] if kinds.KEEPS_SHOWN.search(node.kind) else self._ways(node, meaning, links)
        for keys in ways:
            texts = self._all(node, keys, meaning)
            if texts is None or texts:
                return texts
        if any(self.graph.link(node.inputs[key]) is not None for keys in ways for key in keys):
            return self._text(self.texts.written(name))
        text = self.texts.at(link, kinds.NEGATIVE if meaning == kinds.NEGATIVE else "")
        if text is None or text.strip():
            return None if text is None else (text.strip(),)
        rest = [key for key in links if not kinds.OTHER.search(key) and not kinds.PIPE.search(key)]
        return self._all(node, rest, kinds.POSITIVE)

    def _ways(self, node: Node, meaning: str, links: dict[str, Link]) -> list[list[str]]:
        """Group the inputs that may lead on, those that are nearest to what is wanted first."""
        pipes = [
            key for key, value in node.inputs.items() if kinds.PIPE.search(key) and self.graph.link(value)
        ]
        if meaning == kinds.NEGATIVE:
            stated = [key for key, value in node.inputs.items() if kinds.is_negative(key) and _holds(value)]
            return [stated, pipes] if stated or pipes else [self._conditioning(node)]
        stated = [key for key, value in node.inputs.items() if kinds.is_positive(key) and _holds(value)]
        base = [key for key in stated if not kinds.is_refiner(key)] or stated
        populated = [key for key in base if "populated" in key]
        last = list(reversed(pipes)) if "Merge" in node.kind else pipes
        ways = [[key for key in links if key == "guider"], populated or base, self._conditioning(node)]
        return [*ways, *[[key] for key in last]]

    def _conditioning(self, node: Node) -> list[str]:
        keys = [
            key
            for key, value in node.inputs.items()
            if kinds.CONDITIONING.search(key)
            and not kinds.OTHER.search(key)
            and not kinds.is_negative(key)
            and self.graph.link(value) is not None
        ]
        if _AVERAGES.search(node.kind):
            share = node.inputs.get("conditioning_to_strength")
            without = "conditioning_from" if share == 1 else "conditioning_to" if share == 0 else None
            return [key for key in keys if key != without]
        return keys

    def _all(self, node: Node, keys: list[str], meaning: str) -> Prompt:
        found: list[str] = []
        for key in keys[: 4 * edits.MOST_TEXTS]:
            value = node.inputs[key]
            link = self.graph.link(value)
            if link is None:
                texts = self._text(value)
            else:
                # Behind an input for one thing both meanings are that thing; a pipe still carries both.
                texts = self.at(link, meaning if kinds.PIPE.search(key) else kinds.POSITIVE)
            if texts is None:
                return None
            found += texts
            if len(found) >= edits.MOST_TEXTS:
                break
        return tuple(dict.fromkeys(found))[: edits.MOST_TEXTS]

    def _switched(self, name: str, meaning: str) -> Prompt:
        options, sure = switches.chosen(self.graph, name)
        inputs = self.graph.nodes[name].inputs
        prompts: list[Prompt] = []
        for key in options[:8]:
            link = self.graph.link(inputs[key])
            prompt = self.at(link, meaning) if link is not None else self._text(inputs[key])
            if sure and prompt is not None:
                return prompt
            prompts.append(prompt)
        different = set(prompts) - {()}
        return different.pop() if not sure and len(different) == 1 else None if different else ()

    def _text(self, value: object) -> Prompt:
        text = self.texts.of(value)
        return None if text is None else (text.strip(),) if text.strip() else ()


def _holds(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and bool(value.strip()))
