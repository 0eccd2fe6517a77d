"""Trunk columns: what storing them loses, what they weigh, and what they and levels cost in the same pass.

    python benchmarks/trunk.py stored DATA --work DIR [--only NAME,NAME]
    python benchmarks/trunk.py passes DATA --work DIR [--only NAME,NAME]

DATA is a folder with images. Four backbones: two packaged ones, and a ResNet50 of timm and a ViT-B/32 of
open_clip with seeded random weights. `stored`: cut before the last 1, 2 and 4 blocks, the cosine between the
features of the whole model and those of the tail on what a column keeps, in float32 (so that the storage is
all that differs) and in bfloat16. `passes`: the processor time of a pass over `--images` images, from files
to parts, with the feature alone, with `--trunk 2`, with the same in int8, with `--levels multi`; each in
turn, medians of `--runs`. Prints a table and adds to `results/trunk.json`.
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
from limit import local
from PIL.Image import Image
from system import load, save

from img2prompt_cache.cache.manifest import Column, column_folder
from img2prompt_cache.cache.quantise import quantise, restore
from img2prompt_cache.extraction.compute import Worker
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.build import shape_of
from img2prompt_cache.models.backbones.tail import tail_of
from img2prompt_cache.models.backbones.taps import Tap, choose_taps
from img2prompt_cache.numerics.metrics import cosine
from img2prompt_cache.sources import open_source
from img2prompt_cache.sources.base import Source

PACKAGED = {
    "efficientnet-lite0": "packaged:efficientnet-lite0",
    "vit-small-saliency": "packaged:vit-small-saliency",
}
RANDOM = ("resnet50", "clip_b_32")
CUTS, BATCH = (1, 2, 4), 32
PASSES = {
    "plain": (),
    "trunk 2": choose_taps(trunk=2),
    "trunk 2, int8": choose_taps(trunk=2, trunk_dtype="int8"),
    "levels": choose_taps(levels="multi"),
}


def stored(spec: str, pictures: list[Image]) -> dict[str, Any]:
    """Compare the tail on what a trunk column keeps with the whole model, at each cut, in both precisions."""
    figures: dict[str, Any] = {}
    for precision in ("fp32", "bf16"):
        backbone = load_backbone(spec, precision=precision)
        pixels = torch.from_numpy(np.stack([backbone.geometry.apply(picture) for picture in pictures]))
        found = backbone.read(pixels, {"", *(f"k{k}" for k in CUTS)})
        for k in CUTS:
            values, tail = found[f"k{k}"], tail_of(backbone.model, k)
            codes, scale = quantise(values)
            weigh = {"float16": values[0].nbytes, "int8": codes[0].nbytes + scale[0].nbytes}
            figures[f"k{k} {precision}"] = {"shape": values.shape[1:], "bytes": weigh}
            for name, kept in (("float16", values), ("int8", restore(codes, scale))):
                with torch.inference_mode():
                    features = tail(torch.from_numpy(kept).to(next(tail.parameters()).dtype))
                between = cosine(features.float().numpy(), found[""])
                figures[f"k{k} {precision}"][name] = {
                    "mean": float(between.mean()),
                    "least": float(between.min()),
                }
    return figures


def columns_of(backbone: Backbone, taps: tuple[Tap, ...]) -> list[Column]:
    """The columns that a pass over one backbone writes."""
    return [
        Column(tap.kind, name, column_folder(tap.kind, name), shape_of(backbone, tap), tap.dtype, {})
        for tap in (Tap(), *taps)
        for name in (f"{backbone.spec}{tap.suffix}",)
    ]


def passes(spec: str, uris: list[str], source: Source, work: Path, runs: int) -> dict[str, Any]:
    """Time passes from the images' files to finished parts, each kind in turn."""
    backbone = load_backbone(spec, precision="bf16")
    kinds = {kind: columns_of(backbone, taps) for kind, taps in PASSES.items()}

    def seconds(columns: list[Column], count: int) -> float:
        rows = Slice(0, 0, {"imgId": uris[:count], "uri": uris[:count]})
        with tempfile.TemporaryDirectory(dir=work) as folder:
            started = time.process_time()
            Worker(lambda column: backbone, BATCH).compute(rows, columns, source, Path(folder))
            return time.process_time() - started

    for columns in kinds.values():
        seconds(columns, BATCH)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(runs):
        for kind, columns in kinds.items():
            times[kind].append(seconds(columns, len(uris)))
    median = {kind: statistics.median(each) for kind, each in times.items()}
    extra = {kind: each / median["plain"] - 1 for kind, each in median.items()}
    return {"images": len(uris), "seconds": times, "median": median, "extra": extra}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("stored", "passes"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join((*PACKAGED, *RANDOM)), help="which, with commas between")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    source = open_source(options.data)
    uris = source.list().table["uri"].to_pylist()
    uris = uris[:: len(uris) // options.images][: options.images]
    figures: dict[str, Any] = load("trunk") or {"stored": {}, "passes": {}}
    if options.what == "stored":
        print("| backbone | blocks | in | shape | float16 bytes | cosine | int8 bytes | cosine | least |")
        print("|---|---|---|---|---|---|---|---|---|")
    else:
        print(f"| backbone | {' | '.join(PASSES)} |\n|{'---|' * (1 + len(PASSES))}")
    for name in options.only.split(","):
        spec = PACKAGED.get(name) or local(options.work, name)
        if options.what == "stored":
            pictures = [decode(source.read(uri)) for uri in uris[: 2 * BATCH]]
            figures["stored"][name] = stored(spec, pictures)
            for cut, found in figures["stored"][name].items():
                k, precision = cut.split()
                print(
                    f"| {name} | {k[1:]} | {precision} | {'×'.join(map(str, found['shape']))} | "
                    f"{found['bytes']['float16']:,} | {found['float16']['mean']:.6f} | "
                    f"{found['bytes']['int8']:,} | {found['int8']['mean']:.5f} | "
                    f"{found['int8']['least']:.4f} |",
                    flush=True,
                )
        else:
            found = figures["passes"][name] = passes(spec, uris, source, options.work, options.runs)
            told = " | ".join(
                f"{found['median'][kind]:.2f} s ({found['extra'][kind]:+.1%})" for kind in PASSES
            )
            print(f"| {name} | {told} |", flush=True)
    print(save("trunk", figures))


if __name__ == "__main__":
    main()
