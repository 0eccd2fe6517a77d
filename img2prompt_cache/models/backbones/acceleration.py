"""Acceleration: a backbone in float32 that computes with a graph from now on, or stays with torch.

A graph is used only where its outputs were compared with torch's, once for each processor and version.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from img2prompt_cache.errors import Img2PromptError
from img2prompt_cache.models.backbones.compiled import Graph
from img2prompt_cache.models.backbones.compiled_file import forget_graph, note_compared, was_compared
from img2prompt_cache.models.backbones.fidelity import drawn, in_format, require_same
from img2prompt_cache.models.devices import lane_threads

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.devices import Precision

ROUNDS, BATCH = 3, 8
"""How often each side of a race runs, on how many images."""


def accelerate(backbone: Backbone, precision: Precision) -> None:
    """Let a backbone compute with a graph.

    Parameters
    ----------
    backbone : Backbone
        In float32, on the processor.
    precision : {"fp32", "bf16"}

    Raises
    ------
    Img2PromptError
        If it cannot be converted, or does not compute what torch does.
    """
    backbone.compute_with(_checked_graph(backbone, precision))


def accelerate_if_faster(backbone: Backbone, precision: Precision) -> float:
    """Let a backbone compute with a graph where that is faster here than torch, on a few batches in turn.

    Otherwise it stays as it was: in float32, computing with torch.

    Returns
    -------
    float
        How many times as fast as torch the graph is; it is used where that is above 1.

    Raises
    ------
    Img2PromptError
        As `accelerate`.
    """
    graph = _checked_graph(backbone, precision)
    ours = backbone if precision == "fp32" else in_format(backbone, precision)
    gain = race(ours, graph)
    if gain > 1:
        backbone.compute_with(graph)
    return gain


def race(backbone: Backbone, graph: Graph) -> float:
    """Let a backbone that computes with torch and a graph of it run in turn, in one thread each.

    Returns
    -------
    float
        How many times as fast the graph is, each at its best: other programs only add time.
    """
    pixels = drawn(backbone)[:BATCH]
    ours: list[float] = []
    graphs: list[float] = []
    before = torch.get_num_threads()
    torch.set_num_threads(lane_threads())
    try:
        for _ in range(ROUNDS):
            for model, seconds in ((backbone, ours), (graph, graphs)):
                started = time.perf_counter()
                model.read(pixels, graph.names)
                seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return min(ours) / min(graphs)


def _checked_graph(backbone: Backbone, precision: Precision) -> Graph:
    graph = Graph(backbone, precision)
    where = f"{precision} on {graph.processor}"
    if not was_compared(backbone, where):
        try:
            require_same(backbone, graph)
        except Img2PromptError:
            forget_graph(backbone)
            raise
        note_compared(backbone, where)
    return graph
