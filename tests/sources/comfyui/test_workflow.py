"""Prompts of workflows: graphs as the user drew them, where the one that ran was not kept."""

from typing import Any

import pytest

from img2prompt_cache.sources.comfyui import positive_prompt

WORDS = "a heron on a pier, misty morning"
NEGATIVE = "smudged, cropped"
OTHER = "a tram depot, ink"


class Drawing:
    """Draws a workflow node by node."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[object]] = []

    def add(self, name: object, kind: str, values: object = (), mode: int = 0, **inputs: object) -> None:
        """Add a node; an input is ``(node, output, type)``, or a type if it is not connected."""
        slots = []
        for slot, (key, value) in enumerate(inputs.items()):
            entry: dict[str, object] = {"name": key, "type": value, "link": None}
            if isinstance(value, tuple):
                entry = {"name": key, "type": value[2], "link": len(self.links) + 1}
                self.links.append([len(self.links) + 1, value[0], value[1], name, slot, value[2]])
            slots.append(entry)
        held = list(values) if isinstance(values, list | tuple) else values
        self.nodes.append({"id": name, "type": kind, "mode": mode, "inputs": slots, "widgets_values": held})

    def outputs(self, name: object, *kinds: str) -> None:
        node = next(node for node in self.nodes if node["id"] == name)
        node["outputs"] = [{"name": kind, "type": kind} for kind in kinds]

    def sampled(self, *positive: object) -> dict[str, Any]:
        """Add a sampler and what saves its picture."""
        self.add(90, "CLIPTextEncode", [NEGATIVE])
        self.add(
            91,
            "KSampler",
            [8, "fixed", 20, 7, "euler", "normal", 1],
            positive=(*positive, "CONDITIONING"),
            negative=(90, 0, "CONDITIONING"),
        )
        self.add(92, "VAEDecode", samples=(91, 0, "LATENT"))
        self.add(93, "SaveImage", ["x"], images=(92, 0, "IMAGE"))
        return {"nodes": self.nodes, "links": self.links, "version": 0.4}


def simple() -> Drawing:
    drawing = Drawing()
    drawing.add(1, "CLIPTextEncode", [WORDS])
    return drawing


def rerouted() -> dict[str, Any]:
    drawing = simple()
    drawing.add(2, "Reroute", None, **{"": (1, 0, "*")})
    return drawing.sampled(2, 0)


def bypassed() -> dict[str, Any]:
    drawing = simple()
    drawing.add(3, "ControlNetLoader", ["x"])
    control = {"control_net": (3, 0, "CONTROL_NET"), "positive": (1, 0, "CONDITIONING")}
    drawing.add(2, "ControlNetApplyAdvanced", [1, 0, 1], 4, **control, negative="CONDITIONING")
    drawing.outputs(2, "CONDITIONING", "CONDITIONING")
    return drawing.sampled(2, 0)


def primitive() -> dict[str, Any]:
    drawing = Drawing()
    drawing.add(1, "PrimitiveNode", [WORDS, "fixed"])
    drawing.add(2, "CLIPTextEncode", [OTHER], text=(1, 0, "STRING"))
    return drawing.sampled(2, 0)


def set_and_get() -> dict[str, Any]:
    drawing = simple()
    drawing.add(2, "SetNode", ["positive"], CONDITIONING=(1, 0, "CONDITIONING"))
    drawing.add(3, "GetNode", ["positive"])
    return drawing.sampled(3, 0)


def named_values() -> dict[str, Any]:
    """Newer workflows name the values of a node among its inputs."""
    drawing = Drawing()
    drawing.add(1, "SomeEncoder", ["mean", WORDS, 7, "randomize"])
    names = ("weights", "prompt", "seed")
    drawing.nodes[0]["inputs"] = [{"name": name, "widget": {"name": name}, "link": None} for name in names]
    return drawing.sampled(1, 0)


def loader() -> dict[str, Any]:
    drawing = Drawing()
    values = ["x.safetensors", "Baked VAE", -2, "None", 1, 1, WORDS, NEGATIVE, "none", "comfy", 512, 512, 1]
    drawing.add(1, "Efficient Loader", values)
    return drawing.sampled(1, 1)


def switched() -> dict[str, Any]:
    drawing = simple()
    drawing.add(2, "CLIPTextEncode", [OTHER])
    inputs = {"input1": (2, 0, "CONDITIONING"), "input2": (1, 0, "CONDITIONING")}
    drawing.add(3, "ImpactSwitch", [2, False], **inputs)
    return drawing.sampled(3, 0)


def subgraph() -> dict[str, Any]:
    """A subgraph encodes a text that it is given; the value inside is of its template."""
    drawing = Drawing()
    drawing.add(7, "9c1-uuid", [WORDS])
    drawing.nodes[0]["inputs"] = [{"name": "text", "widget": {"name": "text"}, "link": None}]
    inside = {
        "id": "9c1-uuid",
        "nodes": [
            {
                "id": 1,
                "type": "CLIPTextEncode",
                "inputs": [{"name": "text", "link": 1, "widget": {"name": "text"}}],
                "widgets_values": [OTHER],
            },
            {"id": 2, "type": "FluxGuidance", "inputs": [{"name": "conditioning", "link": 2}]},
        ],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0},
            {"id": 2, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0},
            {"id": 3, "origin_id": 2, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        ],
    }
    return {**drawing.sampled(7, 0), "definitions": {"subgraphs": [inside]}}


def subgraph_given_a_link() -> dict[str, Any]:
    workflow = subgraph()
    text = {"id": 5, "type": "PrimitiveStringMultiline", "inputs": [], "widgets_values": [WORDS]}
    workflow["nodes"].append(text)
    workflow["nodes"][0]["inputs"][0]["link"] = 70
    workflow["nodes"][0]["widgets_values"] = [OTHER]
    workflow["links"].append([70, 5, 0, 7, 0, "STRING"])
    return workflow


def group(values: list[object]) -> dict[str, Any]:
    drawing = Drawing()
    drawing.add(7, "workflow>both", values)
    encoder = {"type": "CLIPTextEncode", "inputs": [], "outputs": [{"type": "CONDITIONING"}]}
    nodes = [{**encoder, "widgets_values": [OTHER]}, {**encoder, "widgets_values": [OTHER]}]
    groups = {"both": {"nodes": nodes, "links": [], "external": []}}
    return {**drawing.sampled(7, 1), "extra": {"groupNodes": groups}}


WORKFLOWS = {
    "simple": simple().sampled(1, 0),
    "reroute": rerouted(),
    "bypassed node": bypassed(),
    "primitive": primitive(),
    "set and get": set_and_get(),
    "values named by inputs": named_values(),
    "loader": loader(),
    "switch": switched(),
    "subgraph": subgraph(),
    "subgraph that is given a link": subgraph_given_a_link(),
    "group node": group([NEGATIVE, WORDS]),
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_prompt_of_a_workflow(name: str) -> None:
    assert positive_prompt(None, WORKFLOWS[name]) == WORDS
    assert positive_prompt(WORKFLOWS[name]) == WORDS


def test_the_graph_that_ran_goes_before_the_workflow() -> None:
    ran = {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "what ran"}},
        "2": {"class_type": "KSampler", "inputs": {"positive": ["1", 0]}},
    }
    assert positive_prompt(ran, WORKFLOWS["simple"]) == "what ran"


def test_muted_nodes_give_nothing() -> None:
    drawing = simple()
    drawing.nodes[0]["mode"] = 2
    assert positive_prompt(None, drawing.sampled(1, 0)) is None


def test_values_of_a_group_node_that_do_not_fit_are_not_taken() -> None:
    assert positive_prompt(None, group([WORDS])) is None


def test_one_of_several_unnamed_strings_is_no_text() -> None:
    drawing = Drawing()
    drawing.add(1, "SomePromptByColor", ["#00FF00", WORDS])
    assert positive_prompt(None, drawing.sampled(1, 0)) is None


def test_a_workflow_is_read_in_an_image_without_graph() -> None:
    import json

    from img2prompt_cache.sources.embedded.prompts import Found, prompt_in

    found = prompt_in({"workflow": json.dumps(WORKFLOWS["simple"])})
    assert found == Found(WORDS, "comfyui")
