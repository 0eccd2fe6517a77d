"""The workflow: the graph as the user drew it, of which the API format is made when it runs.

Nodes are linked by the ids of links and hold their values in lists. Some never run: muted and bypassed ones,
and those that only lay out links. A subgraph stands as one node, its inside is defined apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from img2prompt_cache.sources.comfyui import groups, kinds, widgets
from img2prompt_cache.sources.comfyui.graph import LONGEST_NAME, Node

MOST_NODES = 30_000
"""Nodes and links of a workflow with its subgraphs written out, which may stand in one another."""
DEEPEST = 8
"""Subgraphs inside one another."""
LONGEST_WAY = 500
"""Nodes that only hand a link on, one after the other."""
MOST_HOPS = 300_000
"""Links that are followed over a whole workflow, and inputs looked at on the way."""

_MUTED, _BYPASSED = 2, 4
_SETS, _GETS = ("SetNode", "easy setNode"), ("GetNode", "easy getNode")
_VIRTUAL = frozenset(("Reroute", "PrimitiveNode", "Note", "MarkdownNote", *_SETS, *_GETS))

Drawn = Mapping[str, object]
"""A node as the workflow keeps it."""


@dataclass(slots=True)
class Scope:
    """The nodes of a workflow, or of one subgraph where it is used."""

    prefix: str
    nodes: dict[str, Drawn]
    links: dict[str, tuple[str, int]]
    """Id of a link to the node and the output where it begins."""
    returns: dict[int, str]
    """Outputs of the subgraph to the link that leads there."""
    outer: Scope | None = None
    inner: dict[str, Scope] = field(default_factory=dict)
    sets: dict[str, Drawn] = field(default_factory=dict)
    """Names of SetNodes to them."""


@dataclass(slots=True)
class Workflow:
    """A workflow with its subgraphs written out."""

    scopes: list[Scope]
    left: int = MOST_HOPS
    """Hops from node to node that may still be made."""

    @classmethod
    def of(cls, value: object) -> Workflow:
        """Read a parsed workflow; one without nodes if it is none."""
        scopes: list[Scope] = []
        if not isinstance(value, Mapping) or not isinstance(value.get("nodes"), list):
            return cls(scopes)
        defined = _definitions(value)
        grouped: dict[str, Drawn | None] = {}
        waiting: list[tuple[str, Drawn, Scope | None, str, int]] = [("", value, None, "", 0)]
        left = MOST_NODES
        while waiting:
            prefix, drawn, outer, instance, depth = waiting.pop(0)
            if outer is not None and _kind(outer.nodes[instance]) in grouped:
                drawn = groups.with_values(drawn, outer.nodes[instance].get("widgets_values"))
            scope = _scope(prefix, drawn, outer)
            left -= len(scope.nodes) + len(scope.links)
            if left < 0:
                break
            scopes.append(scope)
            if outer is not None:
                outer.inner[instance] = scope
            for name, node in scope.nodes.items():
                kind = _kind(node)
                if kind not in defined and kind not in grouped:
                    grouped[kind] = groups.definition(value, kind)
                inside = defined.get(kind) or grouped.get(kind)
                if inside is not None and depth < DEEPEST:
                    waiting.append((f"{prefix}{name}:", inside, scope, name, depth + 1))
        return cls(scopes)

    def output_names(self) -> dict[str, list[object]]:
        """Name the outputs of each node."""
        return {
            name: [one.get("name") or one.get("type") for one in _dicts(node.get("outputs"))]
            for name, _, node in self._all()
        }

    def shown(self) -> dict[str, str]:
        """Give what nodes showed in this run, by the id of the node.

        Inside a subgraph they do not find themselves, and what stands there is of an earlier run.
        """
        found: dict[str, str] = {}
        for name, scope, node in self._all():
            if scope.outer is None and kinds.KEEPS_SHOWN.search(_kind(node)):
                text = widgets.shown_text(node.get("widgets_values"))
                if text is not None:
                    found[name] = text
        return found

    def ran(self) -> dict[str, Node]:
        """Write the nodes as the API format has them."""
        return {
            name: Node(_kind(node), self._inputs(scope, node))
            for name, scope, node in self._all()
            if node.get("mode") not in (_MUTED, _BYPASSED)
            and _kind(node) not in _VIRTUAL
            and name.rpartition(":")[2] not in scope.inner
        }

    def _all(self) -> Iterator[tuple[str, Scope, Drawn]]:
        for scope in self.scopes:
            for name, node in scope.nodes.items():
                yield scope.prefix + name, scope, node

    def _inputs(self, scope: Scope, node: Drawn) -> dict[str, object]:
        inputs = widgets.values(_kind(node), node.get("widgets_values"), node.get("inputs"))
        for one in _dicts(node.get("inputs")):
            link = one.get("link")
            value = None if link is None else self._origin(scope, str(link))
            if value is not None:
                inputs[str(one.get("name"))] = value
        return {key: value for key, value in inputs.items() if len(key) <= LONGEST_NAME}

    def _origin(self, scope: Scope, link: str) -> object:
        """Follow a link to the node that runs, as ``[id, output]``, or to a value; None if it ends."""
        for _ in range(LONGEST_WAY):
            origin, slot = scope.links.get(link, ("", 0))
            self.left -= _breadth(scope.nodes.get(origin))
            if self.left < 0:
                return None
            following: object = None
            if origin == groups.INPUT and scope.outer is not None:
                name = scope.prefix.rstrip(":").rpartition(":")[2]
                scope = scope.outer
                held = scope.nodes[name]
                taken = _dicts(held.get("inputs"))
                following = taken[slot].get("link") if slot < len(taken) else None
                if following is None and slot < len(taken):
                    named = widgets.values("", held.get("widgets_values"), held.get("inputs"))
                    return named.get(str(taken[slot].get("name")))
            elif origin in scope.nodes:
                node = scope.nodes[origin]
                kind = _kind(node)
                if node.get("mode") == _MUTED:
                    return None
                if origin in scope.inner and node.get("mode") != _BYPASSED:
                    scope = scope.inner[origin]
                    following = scope.returns.get(slot)
                elif kind == "PrimitiveNode":
                    held_values = node.get("widgets_values")
                    return held_values[0] if isinstance(held_values, list) and held_values else None
                elif kind in _GETS:
                    scope, following = _set(scope, node)
                elif kind in ("Reroute", *_SETS) or node.get("mode") == _BYPASSED:
                    following = _handed_on(node, slot)
                else:
                    return [scope.prefix + origin, slot]
            if following is None:
                return None
            link = str(following)
        return None


def _handed_on(node: Drawn, slot: int) -> object:
    """Give the link of the input that a bypassed node, or a reroute, hands on: one of the output's type."""
    inputs, outputs = _dicts(node.get("inputs")), _dicts(node.get("outputs"))
    if _kind(node) in ("Reroute", *_SETS):
        return inputs[0].get("link") if inputs else None
    kind = outputs[slot].get("type") if slot < len(outputs) else None
    first = inputs[slot : slot + 1]
    alike = [one for one in [*first, *inputs] if kind is not None and one.get("type") == kind]
    return next((one.get("link") for one in alike if one.get("link") is not None), None)


def _set(scope: Scope, node: Drawn) -> tuple[Scope, object]:
    """Find the SetNode of a name, here or outside."""
    name, place = _first(node), scope
    while name not in place.sets and place.outer is not None:
        place = place.outer
    node = place.sets.get(name, {})
    return place, _handed_on(node, 0) if node else None


def _scope(prefix: str, drawn: Drawn, outer: Scope | None) -> Scope:
    nodes = {str(node.get("id")): node for node in _dicts(drawn.get("nodes"))[:MOST_NODES]}
    links: dict[str, tuple[str, int]] = {}
    returns: dict[int, str] = {}
    raw = drawn.get("links")
    for one in raw[: 4 * MOST_NODES] if isinstance(raw, list) else []:
        if isinstance(one, list) and len(one) >= 5:
            name, origin, slot, target, into = one[:5]
        elif isinstance(one, dict):
            keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
            name, origin, slot, target, into = (one.get(key) for key in keys)
        else:
            continue
        if isinstance(slot, int) and slot >= 0:
            links[str(name)] = (str(origin), slot)
            if str(target) == groups.OUTPUT and isinstance(into, int):
                returns[into] = str(name)
    sets = {_first(node): node for node in nodes.values() if _kind(node) in _SETS}
    return Scope(prefix, nodes, links, returns, outer, sets=sets)


def _definitions(workflow: Drawn) -> dict[str, Drawn]:
    defined = workflow.get("definitions")
    subgraphs = defined.get("subgraphs") if isinstance(defined, Mapping) else None
    return {str(one.get("id")): one for one in _dicts(subgraphs)}


def _breadth(node: Drawn | None) -> int:
    inputs = node.get("inputs") if node is not None else None
    return 1 + len(inputs) if isinstance(inputs, list) else 1


def _kind(node: Drawn) -> str:
    return str(node.get("type", ""))[:LONGEST_NAME]


def _first(node: Drawn) -> str:
    held = node.get("widgets_values")
    return str(held[0]) if isinstance(held, list) and held else ""


def _dicts(value: object) -> list[Drawn]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
