"""Group nodes, as ComfyUI had them before subgraphs, written as the definition of a subgraph."""

from __future__ import annotations

from collections.abc import Mapping

INPUT, OUTPUT = "-10", "-20"
"""Ids under which the inside of a subgraph names its own inputs and outputs."""
_PREFIXES = ("workflow>", "workflow/")


def definition(workflow: Mapping[str, object], kind: str) -> dict[str, object] | None:
    """Give the inside of a group node.

    Inputs that nothing inside is linked to are the group's own, in the order of the nodes; so are outputs
    that nothing inside takes.

    Parameters
    ----------
    workflow : mapping
        The whole workflow, which keeps the definitions.
    kind : str
        The type of the node.

    Returns
    -------
    dict or None
        ``nodes`` and ``links`` as those of a subgraph; None if it is no group node.
    """
    groups = _inside(workflow.get("extra"), "groupNodes")
    name = next((kind[len(prefix) :] for prefix in _PREFIXES if kind.startswith(prefix)), None)
    group = groups.get(name) if name is not None else None
    raw, wires = _inside({"": group}, "").get("nodes"), _inside({"": group}, "").get("links")
    if not isinstance(raw, list) or not isinstance(wires, list):
        return None
    nodes = [dict(node) if isinstance(node, dict) else {} for node in raw]
    links: list[dict[str, object]] = []
    into: dict[tuple[object, object], int] = {}
    taken: set[tuple[object, object]] = set()
    for wire in wires:
        if isinstance(wire, list) and len(wire) >= 4 and all(isinstance(end, int) for end in wire[:4]):
            into[wire[2], wire[3]] = len(links)
            taken.add((wire[0], wire[1]))
            links.append(_link(len(links), *wire[:4]))
    shown = _external(group)
    given = told = 0
    for at, node in enumerate(nodes):
        node["id"] = at
        inputs = [dict(one) if isinstance(one, dict) else {} for one in _list(node.get("inputs"))]
        for slot, one in enumerate(inputs):
            one["link"] = into.get((at, slot))
            if one["link"] is None and not one.get("widget"):
                one["link"] = len(links)
                links.append(_link(len(links), INPUT, given, at, slot))
                given += 1
        node["inputs"] = inputs
        for slot, _ in enumerate(_list(node.get("outputs"))):
            if (at, slot) not in taken or (at, slot) in shown:
                links.append(_link(len(links), at, slot, OUTPUT, told))
                told += 1
    return {"nodes": nodes, "links": links}


def with_values(inside: Mapping[str, object], held: object) -> Mapping[str, object]:
    """Give the inside of a group node the values that the group holds: those of its nodes, one by one.

    Where their number is another, some are hidden or linked; none is taken then, nor those of the definition.
    """
    nodes = [node for node in _list(inside.get("nodes")) if isinstance(node, dict)]
    own = [_list(node.get("widgets_values")) for node in nodes]
    values = _list(held)
    fits = len(values) == sum(map(len, own))
    filled, at = [], 0
    for node, before in zip(nodes, own, strict=True):
        filled.append({**node, "widgets_values": values[at : at + len(before)] if fits else []})
        at += len(before)
    return {**inside, "nodes": filled}


def _link(name: int, origin: object, slot: object, target: object, into: object) -> dict[str, object]:
    return {"id": name, "origin_id": origin, "origin_slot": slot, "target_id": target, "target_slot": into}


def _external(group: object) -> set[tuple[object, object]]:
    external = _list(_inside({"": group}, "").get("external"))
    ends = (one[:2] for one in external if isinstance(one, list) and len(one) >= 2)
    return {(node, slot) for node, slot in ends if isinstance(node, int) and isinstance(slot, int)}


def _inside(value: object, key: str) -> Mapping[str, object]:
    inner = value.get(key) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
