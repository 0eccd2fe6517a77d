"""What a pass of the packaged preset costs, part by part: backbones, levels, class names, the second view.

    python benchmarks/preset.py DATA [--images 64] [--runs 5]

DATA is a folder with images. Passes from files to parts, in turn, each backbone in the precision that
`--precision auto` chose when it was measured (float32 for the EfficientNets, bfloat16 for the ViT, where the
processor has it): the preset of version 0.1, pooled features of the three backbones, the same with levels,
with class names, and with the second view. One lane on one thread, and processor time beside the time on the
clock, so that other work on the machine disturbs it little. Prints a table of medians, relative to the first
pass of the same round, and writes `results/preset.json`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from system import save

from img2prompt_cache.cache.manifest import Column, column_folder
from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.build import shape_of
from img2prompt_cache.models.backbones.taps import MULTI, NAMES, PRESET_TAPS, TOP, Tap, split_spec
from img2prompt_cache.models.naming import attach_names
from img2prompt_cache.models.specs import PRESETS
from img2prompt_cache.sources import open_source

BACKBONES, ENCODER = PRESETS["packaged"]
BEFORE = ("packaged:efficientnet-lite0", "packaged:vit-small-saliency")
PRECISION = {"packaged:vit-small-saliency": "bf16"}
BATCH = 32


def taps_of(spec: str, names: tuple[str, ...], *, second: bool) -> list[Tap]:
    """What a pass keeps of a backbone, of what the preset does."""
    kept = [Tap(), *PRESET_TAPS[spec]]
    return [tap for tap in kept if tap.name in names and (second or not tap.squash)]


PASSES = {
    "0.1: pooled, two backbones": {spec: [Tap()] for spec in BEFORE},
    "pooled, three backbones": {spec: [Tap()] for spec in BACKBONES},
    "with levels": {spec: taps_of(spec, (TOP, MULTI), second=False) for spec in BACKBONES},
    "with class names": {spec: taps_of(spec, (TOP, MULTI, NAMES), second=False) for spec in BACKBONES},
    "with the second view (the preset)": {
        spec: taps_of(spec, (TOP, MULTI, NAMES), second=True) for spec in BACKBONES
    },
}


def columns_of(backbones: dict[str, Backbone], taps: dict[str, list[Tap]]) -> list[Column]:
    """The columns that a pass writes."""
    return [
        Column(tap.kind, name, column_folder(tap.kind, name), shape_of(backbones[spec], tap), tap.dtype, {})
        for spec, kept in taps.items()
        for tap in kept
        for name in (f"{spec}{tap.suffix}",)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source(options.data)
    uris = source.list().table["uri"].to_pylist()
    uris = uris[:: len(uris) // options.images][: options.images]
    backbones = {spec: load_backbone(spec, precision=PRECISION.get(spec, "fp32")) for spec in BACKBONES}
    for spec in BACKBONES:
        if Tap(NAMES) in PRESET_TAPS[spec]:
            attach_names(backbones[spec], ENCODER)
    passes = {name: columns_of(backbones, taps) for name, taps in PASSES.items()}

    def measure(columns: list[Column], count: int) -> tuple[float, float]:
        rows = Slice(0, 0, {"imgId": uris[:count], "uri": uris[:count]})
        worker = Worker(lambda column: backbones[split_spec(column.spec)[0]], BATCH, lanes=1)
        with tempfile.TemporaryDirectory() as folder:
            clock, processor = time.perf_counter(), time.process_time()
            worker.compute(rows, columns, source, Path(folder))
            return time.perf_counter() - clock, time.process_time() - processor

    for columns in passes.values():
        measure(columns, BATCH)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
    for _ in range(options.runs):
        for name, columns in passes.items():
            taken[name].append(measure(columns, len(uris)))
    first = next(iter(taken.values()))
    figures: dict[str, Any] = {"images": len(uris), "runs": options.runs, "passes": {}}
    print("| pass | columns | bytes a row | s | processor s | times the first |\n|---|---|---|---|---|---|")
    for name, each in taken.items():
        ratios = [own[1] / other[1] for own, other in zip(each, first, strict=True)]
        size = sum(2 * int(np.prod(column.shape)) for column in passes[name])
        found = figures["passes"][name] = {
            "columns": len(passes[name]),
            "bytes": size,
            "clock": [one for one, _ in each],
            "processor": [one for _, one in each],
            "ratio": statistics.median(ratios),
        }
        clock, processor = (statistics.median(found[key]) for key in ("clock", "processor"))
        print(
            f"| {name} | {found['columns']} | {size:,} | {clock:.2f} | {processor:.2f} | "
            f"{found['ratio']:.2f} |"
        )
    print(save("preset", figures))


if __name__ == "__main__":
    main()
