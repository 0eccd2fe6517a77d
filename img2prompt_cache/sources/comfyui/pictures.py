"""From the picture that was saved back to what made it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from img2prompt_cache.sources.comfyui import edits, kinds, switches
from img2prompt_cache.sources.comfyui.conditions import Conditions, Prompt
from img2prompt_cache.sources.comfyui.graph import Graph, Node

_SAVES = re.compile(r"save|video ?combine|image ?out|send|websocket|upload|\bexport", re.IGNORECASE)
_PREVIEWS = re.compile(r"preview|show|view|display|output|combine", re.IGNORECASE)
_PICTURE = re.compile(
    r"^(?:(?:\w+_)?images?(?:_?\w)?|pixels|samples\w*|latents?(?:_\w+)?|latent\d*|optional_latent|destination|frames?|"
    r"video|animation|upscaled?_image|current_image|any_?\w*|input_?\w*|value|on_true|on_false|anything|source|stage_c)$",
    re.IGNORECASE,
)
_TAKEN = re.compile(r"^(?:\w*images?\w*|pixels|samples\w*|latents?|frames?|video)$", re.IGNORECASE)
"""Inputs of nodes that save or show pictures."""
_REFERENCE = re.compile(
    r"^(?:start_|end_|ref\w*_|style_|control_?|pose_|depth_|face_?)images?|_ref$|^image_ref|negative",
    re.IGNORECASE,
)
_LATENT = re.compile(r"^(?:pixels|samples\w*|latent\w*)$", re.IGNORECASE)
_GUIDES = re.compile(
    r"^(?:guider|(?:base_|optional_)?positive\w*|pos|conditioning|cond1?|\w*embeds?|upscaler|base_sampler|full_sampler_opt|"
    r"(?:\w+_)?pipe(?:_opt)?|sdxl_tuple)$",
    re.IGNORECASE,
)
_LOADS = re.compile(r"load ?(?:image|video|latent)|(?:image|video|latent) ?load", re.IGNORECASE)
_PROMPTS = re.compile(
    r"^(?:prompt|prompt_text|text|text_prompt|positive_prompt|user_prompt|description)$", re.IGNORECASE
)


@dataclass(slots=True)
class Pictures:
    """Walks the pictures and latents of one graph upwards.

    Attributes
    ----------
    makers : deque of str
        Nodes above the last end that make a picture after a prompt: first those that made it from noise,
        behind them those that changed it later.
    loaded : bool
        Whether a picture above the last end was loaded from a file.
    """

    graph: Graph
    conditions: Conditions
    makers: deque[str] = field(default_factory=deque)
    loaded: bool = False
    leaves: dict[str, tuple[str, ...]] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    """Nodes that were looked at apart from the way of the picture."""

    def walk(self, end: str) -> None:
        """Collect the makers above a node; every node is walked once over all calls."""
        self.makers.clear()
        self.loaded = False
        stack: list[tuple[str, list[str], Iterator[str]]] = []
        self._enter(end, stack)
        while stack:
            name, above, rest = stack[-1]
            following = next(rest, None)
            if following is not None:
                self._enter(following, stack)
                continue
            stack.pop()
            self._leave(name, above, taken=bool(stack))

    def prompt(self) -> Prompt:
        """Give the texts of the first maker that has one; None if they are not in the file."""
        for name in self.makers:
            texts = self.of(name)
            if texts is None or texts:
                return texts
        return ()

    def of(self, name: str) -> Prompt:
        """Give the texts that a maker was given."""
        if _is_guided(self.graph, self.graph.nodes[name]):
            return self.conditions.at((name, -1))
        text = self.conditions.texts.written(name)
        return None if text is None else (text,) if text.strip() else ()

    def _enter(self, name: str, stack: list[tuple[str, list[str], Iterator[str]]]) -> None:
        if name not in self.leaves and self.graph.visit(name):
            self.leaves[name] = ()
            self.loaded = self.loaded or _LOADS.search(self.graph.nodes[name].kind) is not None
            above = self._above(name)
            stack.append((name, above, iter(above)))

    def _leave(self, name: str, above: list[str], *, taken: bool) -> None:
        leaves = tuple(dict.fromkeys(leaf for link in above for leaf in self.leaves.get(link, ())))[:2]
        node = self.graph.nodes[name]
        if not self._makes(node, taken=taken):
            self.leaves[name] = leaves
        elif len(leaves) > 1 and self.of(leaves[0]) != self.of(leaves[1]):
            # Parts of a picture, each after a prompt of its own: what joins them has the prompt of the whole.
            self.makers.appendleft(name)
            self.leaves[name] = (name,)
        else:
            self.makers.append(name)
            self.leaves[name] = leaves[:1] or (name,)

    def _makes(self, node: Node, *, taken: bool = True) -> bool:
        """Tell whether a node makes a picture after a prompt; `taken`: whether another takes its picture."""
        if kinds.is_pipe(node) or switches.is_switch(node):
            return False
        if _is_guided(self.graph, node):
            return kinds.runs(node)
        pictures = not kinds.NO_PICTURES.search(node.kind) and not kinds.encodes(node)
        return taken and pictures and _holds(self.graph, node, _PROMPTS)

    def _above(self, name: str) -> list[str]:
        """Give the nodes whose picture or latent a node takes over."""
        node = self.graph.nodes[name]
        links = dict(self.graph.links(name))
        if switches.is_switch(node):
            options, sure = switches.chosen(self.graph, name)
            chosen = [links[key][0] for key in options if key in links]
            return chosen[:1] if sure else chosen
        hands_on = (
            any(kinds.is_positive(key) for key in links) and not kinds.runs(node) and not kinds.is_pipe(node)
        )
        wanted = _LATENT if hands_on else _PICTURE
        found = [link[0] for key, link in links.items() if wanted.search(key) and not _REFERENCE.search(key)]
        pipes = [link[0] for key, link in links.items() if kinds.PIPE.search(key)]
        if found or hands_on:
            return found
        if pipes or self._makes(node):
            return pipes
        return [
            link[0] for key, link in links.items() if not kinds.OTHER.search(key) or key.startswith("mask")
        ]


def ends(graph: Graph) -> list[list[str]]:
    """Name the nodes to start from: those that save, those that show, those that nothing is linked to.

    A graph that is all cycles has only the last: all of its nodes.
    """
    used = {link[0] for name in graph.nodes for _, link in graph.links(name)}
    saves, shows, others = [], [], []
    for name, node in graph.nodes.items():
        kept = str(node.inputs.get("image_output", "")).startswith("Save")
        if kept or (_SAVES.search(node.kind) and _takes_pictures(graph, name)):
            saves.append(name)
        elif _PREVIEWS.search(node.kind) and _takes_pictures(graph, name):
            shows.append(name)
        elif name not in used:
            others.append(name)
    if not (saves or shows or others):
        others = list(graph.nodes)
    return [saves, shows, others]


def joined(prompt: Prompt) -> str | None:
    """Write the texts of a prompt as one."""
    return edits.together(list(prompt)) or None if prompt else None


def _takes_pictures(graph: Graph, name: str) -> bool:
    return any(_TAKEN.search(key) for key, _ in graph.links(name))


def _is_guided(graph: Graph, node: Node) -> bool:
    return _holds(graph, node, _GUIDES)


def _holds(graph: Graph, node: Node, names: re.Pattern[str]) -> bool:
    """Tell whether one of the inputs of these names is linked, or a text."""
    return any(
        names.search(key) is not None
        and (graph.link(value) is not None or (isinstance(value, str) and bool(value.strip())))
        for key, value in node.inputs.items()
    )
