"""The positive prompt of a graph: from the picture that was saved to what made it, to the text it was given.

The graph is evaluated as ComfyUI runs it: an output of a node is made of certain of its inputs, of a switch
the one that is selected, of a node that joins texts all of them. Of several samplers the one decides that
made the picture from noise; later ones, which refine it or repaint a part, count only where it has no text.
"""

from __future__ import annotations

import json

from img2prompt_cache.sources.comfyui import kinds, pictures
from img2prompt_cache.sources.comfyui.conditions import Conditions, Prompt
from img2prompt_cache.sources.comfyui.graph import Graph, Node, api_nodes, with_outputs
from img2prompt_cache.sources.comfyui.pictures import Pictures
from img2prompt_cache.sources.comfyui.texts import Texts
from img2prompt_cache.sources.comfyui.workflow import Workflow

_WRAPPERS = ("prompt", "output")


def positive_prompt(graph: object, workflow: object | None = None) -> str | None:
    """Find the positive prompt.

    Parameters
    ----------
    graph : object
        The parsed JSON of what ran, id to ``{"class_type", "inputs"}``; None if it was not kept.
    workflow : object, optional
        The parsed JSON of what the user saw, which keeps what some nodes showed in this run and the names of
        outputs. Read in place of the graph where there is none.

    Returns
    -------
    str or None
        None if nothing leads to a text, and if the text is not in the file: a language model wrote it, say.
    """
    if isinstance(graph, dict):
        for key in _WRAPPERS:  # what was sent to the server, or both graphs in one object
            if not api_nodes(graph) and isinstance(_parsed(graph.get(key)), dict):
                workflow = workflow or graph.get("workflow")
                graph = _parsed(graph[key])
                break
    drawn = Workflow.of(_parsed(workflow))
    nodes = api_nodes(graph)
    if not nodes:
        drawn = Workflow.of(graph) if not drawn.scopes else drawn
        nodes = drawn.ran()
    read = Graph(with_outputs(nodes, drawn.output_names()), drawn.shown())
    try:
        return pictures.joined(_prompt(read)) if nodes else None
    except RecursionError:  # the caller left less of the stack than the longest chain takes
        return None


def _prompt(graph: Graph) -> Prompt:
    walked = Pictures(graph, Conditions(graph, Texts(graph)))
    groups = pictures.ends(graph)
    for group in groups:
        made = False
        for end in group:
            walked.walk(end)
            prompt = walked.prompt()
            if prompt is None or prompt:
                return prompt
            # A picture that was loaded and saved has no prompt, whatever others were made beside it.
            made = made or bool(walked.makers) or (walked.loaded and group is groups[0])
        prompt = _anywhere(graph, walked, group)
        if prompt is None or prompt or made:
            return prompt
    return ()


def _anywhere(graph: Graph, walked: Pictures, level: list[str]) -> Prompt:
    """Take the nearest node upwards that has a positive input, where the way of the picture gives no text."""
    seen = walked.passed
    while level:
        level = [name for name in dict.fromkeys(level) if name not in seen]
        seen.update(level)
        for name in level:
            if _is_sampled(graph.nodes[name]) and graph.left > 0:
                prompt = walked.of(name)
                if prompt is None or prompt:
                    return prompt
        level = [link[0] for name in level for _, link in graph.links(name)]
    return ()


def _is_sampled(node: Node) -> bool:
    return any(key == "guider" or kinds.is_positive(key) for key in node.inputs) and not kinds.writes(node)


def _parsed(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
