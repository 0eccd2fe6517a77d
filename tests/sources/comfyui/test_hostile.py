"""Graphs and workflows of strangers: no crash, little time, little memory."""

import inspect
import json
import os
import subprocess
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2prompt_cache.sources.comfyui import positive_prompt

SECONDS = 2.0
BYTES = 200 << 20


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


def ring(kind: str, key: str, size: int = 20_000, **inputs: object) -> dict[str, Any]:
    """Give nodes that are linked in a ring, which a sampler's positive input leads into."""
    nodes = {str(at): node(kind, **{key: [str((at + 1) % size), 0]}, **inputs) for at in range(size)}
    return {**nodes, "s": sampler()}


def sampler(*link: object) -> dict[str, object]:
    return node("KSampler", positive=list(link) or ["0", 0], negative=["0", 1], seed=1)


def doubled(size: int = 5_000) -> dict[str, Any]:
    """Give texts each of which is twice the one before."""
    join = {
        str(at): node("Concat", text_a=[str(at + 1), 0], text_b=[str(at + 1), 1], delimiter="")
        for at in range(size)
    }
    return {**join, str(size): node("Text", text="x" * 50_000), "s": sampler()}


def replaced() -> dict[str, Any]:
    steps = {
        str(at): node("StringReplace", string=[str(at + 1), 0], find="x", replace="x" * 90_000)
        for at in range(90)
    }
    return {**steps, "90": node("Text", text="x" * 90_000), "s": sampler()}


def dense(kind: str, keys: tuple[str, ...], layers: int = 90, width: int = 90) -> dict[str, Any]:
    """Give layers of nodes, each of which leads to many of the next."""
    nodes = {
        f"{layer}_{at}": node(
            kind, **{key: [f"{layer + 1}_{(at * 7 + step) % width}", step] for step, key in enumerate(keys)}
        )
        for layer in range(layers)
        for at in range(width)
    }
    return {**nodes, "s": sampler("0_0", 0)}


def drawn(**extra: object) -> dict[str, object]:
    return {"nodes": [], "links": [], **extra}


def nested() -> dict[str, object]:
    """Give subgraphs of which each holds the next ten times."""
    inside = [
        {"id": f"g{at}", "nodes": [{"id": n, "type": f"g{at + 1}"} for n in range(10)], "links": []}
        for at in range(20)
    ]
    return drawn(nodes=[{"id": 1, "type": "g0"}], definitions={"subgraphs": inside})


def in_itself() -> dict[str, object]:
    inside = {"id": "g", "nodes": [{"id": 1, "type": "g", "inputs": [{"name": "x", "link": 1}]}], "links": []}
    return drawn(nodes=[{"id": 1, "type": "g"}], definitions={"subgraphs": [inside]})


def handed_round(kind: str) -> dict[str, object]:
    nodes = [
        {"id": at, "type": kind, "inputs": [{"name": "", "link": at}], "widgets_values": [at]}
        for at in range(5_000)
    ]
    encoders = [
        {"id": f"e{at}", "type": "CLIPTextEncode", "inputs": [{"name": "text", "link": at}]}
        for at in range(4_000)
    ]
    links = [[at, (at + 1) % 5_000, 0, at, 0, "*"] for at in range(5_000)]
    return drawn(nodes=[*nodes, *encoders], links=links)


HOSTILE: dict[str, object] = {
    "ring of conditioning": ring("C", "conditioning"),
    "ring of texts": ring("Concat", "text_a", text_b="x"),
    "ring of pipes": ring("ToBasicPipe", "basic_pipe"),
    "ring of switches": ring("ImpactSwitch", "input1", select=1),
    "ring of selectors": ring("ComfySwitchNode", "switch", on_true=["5", 0], on_false=["6", 0]),
    "ring of pictures": ring("ImageScale", "image") | {"s": node("SaveImage", images=["0", 0])},
    "ring of samplers": ring("KSampler", "latent_image", positive=["x", 0]),
    "ring of shown texts": ring("ShowText|pysssss", "text"),
    "doubled texts": doubled(),
    "replaced texts": replaced(),
    "dense conditioning": dense("C", ("conditioning_1", "conditioning_2", "positive")),
    "dense texts": dense("Concat", ("text_a", "text_b", "text_c")),
    "dense switches": dense("ComfySwitchNode", ("switch", "on_true", "on_false")),
    "dense pictures": dense("ImageBlend", ("image1", "image2", "x")),
    "dense samplers": dense("KSampler", ("latent_image", "positive", "samples")),
    "one node asked for by every output": {
        **{str(at): node("Text", text=["wide", at]) for at in range(20_000)},
        "wide": node("Wide", **{f"text_{at}": "x" for at in range(20_000)}),
        "c": node("ConditioningCombine", **{f"conditioning_{at}": [str(at), 0] for at in range(20_000)}),
        "s": sampler("c", 0),
    },
    "many ends": {
        **{f"e{at}": node("SaveImage", images=[f"k{at}", 0]) for at in range(10_000)},
        **{f"k{at}": node("KSampler", positive=["z", 0], seed=1) for at in range(10_000)},
        "z": node("ConditioningZeroOut", conditioning=["z", 0]),
    },
    "many joins": {
        **{
            f"k{at}": node(
                "KSampler", positive=[f"t{at}", 0], samples=[f"k{at + 1}", 0], latent=[f"l{at}", 0], seed=1
            )
            for at in range(10_000)
        },
        **{f"l{at}": node("KSampler", positive=[f"t{at}", 0], seed=1) for at in range(10_000)},
        **{f"t{at}": node("ConditioningZeroOut") for at in range(10_000)},
    },
    "long names": {"k" * 500_000: node("x" * 500_000, **{"a" * 500_000: ["k" * 500_000, 0]}), "s": sampler()},
    "a choice that does not end": {"0": node("Text", text="{|" * 200_000 + "__" * 200_000), "s": sampler()},
    "a schedule that does not end": {"0": node("PromptSchedule", text='"0":"' * 200_000), "s": sampler()},
    "many spaces": {
        "0": node("StringFunction|pysssss", tidy_tags="yes", text_a=" ," * 200_000, text_b="," * 200_000),
        "s": sampler(),
    },
    "digits": {"0": node("ImpactSwitch", select="9" * 30, **{f"input{'9' * 180}": ["1", 0]}), "s": sampler()},
    "subgraphs in subgraphs": nested(),
    "subgraph in itself": in_itself(),
    "reroutes in a ring": handed_round("Reroute"),
    "get and set in a ring": handed_round("SetNode"),
}


def long_ways(size: int) -> dict[str, Any]:
    """Give a chain of conditioning that ends in a chain of texts that ends in a chain of switches."""
    ways = {
        **{f"c{at}": node("C", positive=[f"c{at + 1}", 0]) for at in range(size)},
        f"c{size}": node("CLIPTextEncode", text=["t0", 0], clip=["m", 0]),
        **{f"t{at}": node("Concat", string_a=[f"t{at + 1}", 0], positive_b="") for at in range(size)},
        f"t{size}": node("Styler", positive_text=["w0", 0]),
        **{f"w{at}": node("ImpactSwitch", select=1, input1=[f"w{at + 1}", 0]) for at in range(size)},
        f"w{size}": node("Text", text="a heron"),
    }
    return {**ways, "s": sampler("c0", 0)}


def test_long_ways_are_followed_and_end() -> None:
    assert positive_prompt(long_ways(30)) == "a heron"
    joined = {str(at): node("Concat", text_a=[str(at + 1), 0]) for at in range(500)}
    assert positive_prompt({**joined, "500": node("Text", text="a heron"), "s": sampler()}) is None


def test_little_is_left_of_the_stack() -> None:
    def deeper(left: int) -> str | None:
        return deeper(left - 1) if left else positive_prompt(long_ways(30))

    assert deeper(10) == "a heron"
    assert deeper(sys.getrecursionlimit() - len(inspect.stack()) - 100) is None


MEASURE = """
import json, sys, time
from img2prompt_cache.sources.comfyui import positive_prompt
graph = json.load(sys.stdin)
started = time.process_time()
found = positive_prompt(graph)
print(json.dumps({"seconds": time.process_time() - started, "length": len(found or "")}))
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_work_is_bounded(name: str) -> None:
    """Measured in a process of its own: what measures coverage traces every line of this one."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=json.dumps(HOSTILE[name]),
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["seconds"] < SECONDS
    assert said["length"] < 10_000_000


@pytest.mark.parametrize("name", ["doubled texts", "replaced texts", "subgraphs in subgraphs"])
def test_memory_is_bounded(name: str) -> None:
    tracemalloc.start()
    try:
        positive_prompt(HOSTILE[name])
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


def test_wrong_types_in_a_workflow() -> None:
    for wrong in (None, 3, "x", [], [None], {}, {"x": 1}, [[1, 2, 3, 4, 5]], [{"id": {}}], [{"inputs": [3]}]):
        positive_prompt(None, {"nodes": wrong, "links": wrong, "definitions": wrong, "extra": wrong})
        node = {
            "id": 1,
            "type": wrong,
            "inputs": wrong,
            "outputs": wrong,
            "widgets_values": wrong,
            "mode": wrong,
        }
        positive_prompt(
            None, {"nodes": [node], "links": [[1, 1, 0, 1, 0]], "definitions": {"subgraphs": wrong}}
        )
        group = {"nodes": wrong, "links": wrong, "external": wrong}
        used = {"id": 1, "type": "workflow>g", "widgets_values": wrong}
        positive_prompt(None, {"nodes": [used], "links": wrong, "extra": {"groupNodes": {"g": group}}})


KINDS = (
    *(
        "KSampler",
        "SaveImage",
        "VAEDecode",
        "CLIPTextEncode",
        "N",
        "ImpactSwitch",
        "ComfySwitchNode",
        "Reroute",
    ),
    *("ShowText|pysssss", "StringFunction|pysssss", "StringReplace", "Text Concatenate", "ToBasicPipe"),
    *(
        "FromBasicPipe",
        "Any Switch (rgthree)",
        "Context Merge (rgthree)",
        "ConditioningAverage",
        "FaceDetailer",
    ),
    *(
        "SDXLPromptStyler",
        "OllamaGenerate",
        "PrimitiveBoolean",
        "InvertBoolean",
        "BatchPromptSchedule",
        "SetNode",
    ),
    *("PrimitiveNode", "GetNode", "easy kSampler", "Text Random Line", "StringSubstring", "CaseConverter"),
)
KEYS = (
    *(
        "positive",
        "negative",
        "conditioning",
        "text",
        "text_a",
        "text_b",
        "guider",
        "images",
        "samples",
        "pipe",
    ),
    *(
        "latent_image",
        "delimiter",
        "find",
        "replace",
        "select",
        "switch",
        "on_true",
        "on_false",
        "input1",
        "any_01",
    ),
    *(
        "basic_pipe",
        "base_ctx",
        "populated_text",
        "seed",
        "value",
        "string",
        "start",
        "end",
        "mode",
        "x",
        "text_0",
    ),
)
NAMES = "0123456"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
LINK = st.tuples(st.sampled_from(NAMES), st.integers(-1, 3)).map(list)
INPUTS = st.dictionaries(st.sampled_from(KEYS), LINK | st.text(max_size=5) | JSON, max_size=5)
GRAPH = st.dictionaries(
    st.sampled_from(NAMES),
    st.fixed_dictionaries({"class_type": st.sampled_from(KINDS), "inputs": INPUTS}) | JSON,
    max_size=7,
)
SLOTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(KEYS) | JSON,
            "type": st.sampled_from(("IMAGE", "STRING")) | JSON,
            "link": st.integers(0, 9) | JSON,
        },
        optional={"widget": st.fixed_dictionaries({"name": st.sampled_from(KEYS)}) | JSON},
    )
    | JSON,
    max_size=3,
)
DRAWN = st.fixed_dictionaries(
    {
        "id": st.sampled_from(NAMES) | st.integers(0, 6) | JSON,
        "type": st.sampled_from((*KINDS, "g", "workflow>g")) | JSON,
        "inputs": SLOTS | JSON,
        "widgets_values": st.lists(st.text(max_size=5) | JSON, max_size=3) | JSON,
    },
    optional={"mode": st.integers(0, 4) | JSON, "outputs": SLOTS | JSON},
)
ENDS = st.integers(-20, 6) | st.sampled_from(NAMES)
LINKS = st.lists(
    st.tuples(st.integers(0, 9), ENDS, st.integers(-1, 3), ENDS, st.integers(-1, 3)).map(list)
    | st.fixed_dictionaries(
        {
            "id": st.integers(0, 9),
            "origin_id": ENDS,
            "origin_slot": st.integers(-1, 3),
            "target_id": ENDS,
            "target_slot": st.integers(-1, 3),
        }
    )
    | JSON,
    max_size=9,
)
INSIDE = st.fixed_dictionaries({"id": st.just("g"), "nodes": st.lists(DRAWN, max_size=4), "links": LINKS})
WORKFLOW = st.fixed_dictionaries(
    {"nodes": st.lists(DRAWN | JSON, max_size=6), "links": LINKS | JSON},
    optional={
        "definitions": st.fixed_dictionaries({"subgraphs": st.lists(INSIDE | JSON, max_size=2)}) | JSON,
        "extra": st.fixed_dictionaries({"groupNodes": st.dictionaries(st.just("g"), INSIDE | JSON)}) | JSON,
    },
)


@given(GRAPH | JSON, st.none() | WORKFLOW | JSON)
def test_any_graph_gives_a_text_or_none(graph: object, workflow: object) -> None:
    found = positive_prompt(graph, workflow)
    assert found is None or found.strip()


@given(WORKFLOW)
def test_any_workflow_gives_a_text_or_none(workflow: object) -> None:
    found = positive_prompt(None, workflow)
    assert found is None or found.strip()


@settings(max_examples=50)
@given(GRAPH)
def test_a_graph_is_read_the_same_twice(graph: object) -> None:
    assert positive_prompt(graph) == positive_prompt(json.loads(json.dumps(graph)))
