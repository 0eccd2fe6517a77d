"""A run as one ONNX graph: its backbones and its head, from pixels to vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.exporting.joined_graph import JoinedGraph
from img2prompt_cache.exporting.run_module import RunModule, column_input, head_graph
from img2prompt_cache.images.augment import squash
from img2prompt_cache.models.backbones.graph import PIXELS, graph_of, output_name
from img2prompt_cache.models.backbones.taps import split_spec
from img2prompt_cache.models.recorded import load_recorded_backbone, require_backbone
from img2prompt_cache.progress import Callback, ignore, task

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx
    from numpy.typing import NDArray
    from PIL import Image

    from img2prompt_cache.data.columns import UsedColumn
    from img2prompt_cache.images.geometry import Geometry
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.runs.run import Run


@dataclass(frozen=True, slots=True)
class PixelInput:
    """An input of the graph: images at the size of one or several backbones.

    Attributes
    ----------
    name : str
    geometry : Geometry
        How an image is brought to that size.
    mirrored : bool
        Whether it is then mirrored left to right.
    """

    name: str
    geometry: Geometry
    mirrored: bool

    def prepare(self, pictures: Iterable[Image.Image]) -> NDArray[np.uint8]:
        """Bring pictures to the input size: uint8, shape (n, height, width, 3)."""
        if self.mirrored:
            return np.stack([squash(picture, self.geometry) for picture in pictures])
        return np.stack([self.geometry.apply(picture) for picture in pictures])

    def describe(self) -> dict[str, Any]:
        """Say what a client has to do, as JSON values."""
        geometry = self.geometry
        return {
            "height": geometry.crop[0],
            "width": geometry.crop[1],
            "resize": geometry.resize,
            "size": list(geometry.size),
            "interpolation": geometry.interpolation,
            "fill": list(geometry.fill),
            "mirror": self.mirrored,
        }


@dataclass(frozen=True, slots=True, eq=False)
class UsedBackbone:
    """A backbone that a run needs, in float32, and what it takes of it.

    Attributes
    ----------
    backbone : Backbone
    columns : dict of int to UsedColumn
        Of the run, by their number.
    """

    backbone: Backbone
    columns: dict[int, UsedColumn]

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that are needed."""
        return tuple(dict.fromkeys(split_spec(column.spec)[1].name for column in self.columns.values()))


@dataclass(frozen=True, slots=True, eq=False)
class RunParts:
    """What a run's graph is made of.

    Attributes
    ----------
    run : Run
    module : RunModule
    backbones : tuple of UsedBackbone
    inputs : dict of int to PixelInput
        Of each column that is needed, by its number.
    """

    run: Run
    module: RunModule
    backbones: tuple[UsedBackbone, ...]
    inputs: dict[int, PixelInput]

    @property
    def pixel_inputs(self) -> tuple[PixelInput, ...]:
        """The inputs of the graph, each once."""
        return tuple(dict.fromkeys(self.inputs.values()))


def parts_of(run: Run) -> RunParts:
    """Load what a run is made of, in float32 on the processor.

    Raises
    ------
    UsageError
        If its head cannot be exported.
    Img2PromptError
        If it is damaged, or a backbone is not the one it was fitted with.
    """
    module = RunModule(run.estimator.use_device("cpu"), run.features, run.expectation)
    used: dict[tuple[str, str], UsedBackbone] = {}
    for at in module.needed or [0]:
        column = run.features[at]
        key = (split_spec(column.spec)[0], column.revision)
        if key not in used:
            loaded = load_recorded_backbone(column, device="cpu", precision="fp32")
            used[key] = UsedBackbone(loaded, {})
        else:
            require_backbone(column, used[key].backbone, as_recorded=("precision", "runtime"))
        used[key].columns[at] = column
    return RunParts(run, module, tuple(used.values()), _name_inputs(used.values()))


def _name_inputs(backbones: Iterable[UsedBackbone]) -> dict[int, PixelInput]:
    """Give each column its input: one name for each way to prepare an image."""
    wanted: dict[int, tuple[Geometry, bool]] = {}
    for used in backbones:
        geometry = used.backbone.geometry
        for at, column in used.columns.items():
            mirrored = split_spec(column.spec)[1].squash
            whole = replace(geometry, resize="squash", size=geometry.crop, fill=(0, 0, 0))
            wanted[at] = (whole if mirrored else geometry, mirrored)
    names: dict[tuple[Geometry, bool], str] = {}
    for ways in wanted.values():
        if ways in names:
            continue
        geometry, mirrored = ways
        name = f"{PIXELS}_{geometry.crop[1]}" + "_mirrored" * mirrored
        taken = [
            other for other in names.values() if other.rstrip("0123456789") == f"{name}_" or other == name
        ]
        names[ways] = f"{name}_{len(taken) + 1}" if taken else name
    if len(names) == 1:
        names = dict.fromkeys(names, PIXELS)
    return {at: PixelInput(names[ways], *ways) for at, ways in wanted.items()}


@dataclass(frozen=True, slots=True, eq=False)
class RunGraphs:
    """The graphs that a run's is joined of: those of its backbones, in order, and its head's."""

    backbones: tuple[onnx.ModelProto, ...]
    head: onnx.ModelProto


def graphs_of(parts: RunParts, tell: Callback = ignore) -> RunGraphs:
    """Write the backbones that a run reads, and its head, as ONNX graphs.

    Parameters
    ----------
    parts : RunParts
    tell : callable
        Takes the events of the task ``"export"``, by backbone, then the head.

    Raises
    ------
    Img2PromptError
        If torch cannot write one.
    """
    module, found = parts.module, []
    with task(tell, "export", len(parts.backbones) * module.reads + 1) as advance:
        for used in parts.backbones if module.reads else ():
            found.append(graph_of(used.backbone, used.names))
            advance(1)
        head = head_graph(module, parts.run.features, parts.pixel_inputs[0].geometry.crop)
        advance(1)
    return RunGraphs(tuple(found), head)


def join(parts: RunParts, graphs: RunGraphs) -> onnx.ModelProto:
    """Join the graphs of a run into one."""
    joined, module = JoinedGraph(), parts.module
    wires = {at: each.name for at, each in parts.inputs.items()}
    for number, (used, graph) in enumerate(zip(parts.backbones, graphs.backbones, strict=False), 1):
        for mirrored in (False, True):
            columns = {at: c for at, c in used.columns.items() if parts.inputs[at].mirrored == mirrored}
            if not columns:
                continue
            name = f"backbone_{number}" + "_mirrored" * mirrored
            into = {PIXELS: parts.inputs[next(iter(columns))].name}
            joined.add(graph, name, into, values=f"backbone_{number}", inputs=True)
            for at, column in columns.items():
                wires[at] = f"{name}/{output_name(split_spec(column.spec)[1].name)}"
    own = {column_input(at): wires[at] for at in module.needed or [0]}
    own |= {value.name: value.name for value in graphs.head.graph.output}
    joined.add(graphs.head, "head", own, inputs=not module.reads, outputs=True)
    joined.prune()
    return joined.model
