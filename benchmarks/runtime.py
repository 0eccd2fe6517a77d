"""`extract` with torch against OpenVINO: whole passes over 512 px PNGs and JPEGs, and forward passes alone.

    python benchmarks/runtime.py --work DIR [--small]

Whole commands from start to finished cache, on two cores, sides in turn, each `--runs` times; medians: the
three packaged image backbones together in their default precision, and efficientnet-lite0 alone in float32.
`auto` finds out itself what is faster, on every run. The graphs are on disk before the first run; the forward
passes, which come first, make them. These are measured in one thread, in both precisions, in turn: processor
time, so that other programs disturb less. Weights that are not packaged are random, saved once in DIR.
`--small`: 48 images, one run, no `auto`, packaged backbones only. Prints tables and writes
`results/runtime.json` (`--small` does not).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from system import save
from vs_clip_retrieval import draw, weights

from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.acceleration import accelerate
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.backbones.fidelity import drawn
from img2prompt_cache.numerics.metrics import cosine

THREE = ("packaged:efficientnet-lite0", "packaged:efficientnet-lite2", "packaged:vit-small-saliency")
PASSES: dict[str, tuple[tuple[str, ...], str]] = {
    "three backbones": (THREE, "auto"),
    "efficientnet-lite0, float32": (THREE[:1], "fp32"),
}
RANDOM = ("resnet50", "vit_base_patch16_224")
CORES = 2


def pictures(folder: Path, count: int) -> dict[str, Path]:
    """Draw PNGs, and save them as JPEGs, too."""
    png, jpeg = folder / f"png-{count}", folder / f"jpeg-{count}"
    draw(png, count)
    jpeg.mkdir(exist_ok=True)
    for path in sorted(png.glob("*.png")):
        to = jpeg / f"{path.stem}.jpg"
        if not to.exists():
            Image.open(path).save(to, quality=90)
    return {"PNG": png, "JPEG": jpeg}


def random_models(folder: Path) -> list[str]:
    """Save models with random weights, unless they are there; give their specs."""
    import timm

    specs = []
    for name in RANDOM:
        to = folder / name
        if not (to / "config.json").exists():
            torch.manual_seed(0)
            model = timm.create_model(name, num_classes=0)
            timm.models.save_for_hf(model, to, safe_serialization=True)
        specs.append(f"timm:local-dir:{to}")
    return [*specs, f"open_clip:local-dir:{weights(folder)[0]}"]


def extract(images: Path, specs: tuple[str, ...], precision: str, runtime: str) -> dict[str, float]:
    """Run the whole command on two cores; wall and processor seconds, and the features of the first rows."""
    from img2prompt_cache.cache.reader import Cache

    cores = {*sorted(os.sched_getaffinity(0))[:CORES]}
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        command = [sys.executable, "-m", "img2prompt_cache.cli", "extract", str(images), "--format", "folder"]
        command += ["--cache", str(cache), "--encoder", "packaged:all-MiniLM-L6-v2", "--device", "cpu"]
        command += [word for spec in specs for word in ("--backbone", spec)]
        command += ["--precision", precision, "--runtime", runtime]
        before, started = os.times(), time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        wall, after = time.perf_counter() - started, os.times()
        found = Cache(cache).manifest.of_kind("features")
        used = sum(column.fingerprint.get("runtime") == "openvino" for column in found)
    core = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": wall, "core_s": core, "by_openvino": used}


def whole_passes(images: dict[str, Path], runs: int, sides: tuple[str, ...]) -> dict[str, Any]:
    """Measure each pass with each runtime in turn."""
    found: dict[str, Any] = {}
    print("\n| pass | images | runtime | seconds | core seconds | times torch's |\n|---|---|---|---|---|---|")
    for name, (specs, precision) in PASSES.items():
        for kind, folder in images.items():
            every: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            for _ in range(runs):
                for side in sides:
                    every[side].append(extract(folder, specs, precision, side))
            rows = {
                side: {key: statistics.median(each[key] for each in kept) for key in kept[0]}
                for side, kept in every.items()
            }
            for side, row in rows.items():
                row["speedup"] = rows["torch"]["wall_s"] / row["wall_s"]
                count = sum(1 for _ in folder.iterdir())
                print(
                    f"| {name} | {count} {kind} | {side} | {row['wall_s']:.1f} | {row['core_s']:.1f} | "
                    f"{row['speedup']:.2f} |",
                    flush=True,
                )
            found.setdefault(name, {})[kind] = {"sides": rows, "runs": every}
    return found


def core_seconds(backbone: Backbone, pixels: torch.Tensor) -> float:
    """Processor time of a forward pass."""
    started = time.process_time()
    backbone.encode(pixels)
    return time.process_time() - started


def forward_passes(specs: list[str], runs: int) -> dict[str, Any]:
    """Measure the forward pass of each backbone on the drawn pictures, and compare what it gives."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    print(
        "\n| backbone | precision | torch ms | OpenVINO ms | times as fast | least cosine | graph made in s |"
    )
    print("|---|---|---|---|---|---|---|")
    for spec in specs:
        exact = load_backbone(spec)
        pixels = drawn(exact)
        name = Path(spec.partition(":")[2].rpartition(":")[2]).name
        for precision in ("fp32", "bf16"):
            ours: Backbone = load_backbone(spec, precision=precision)  # type: ignore[arg-type]
            theirs = load_backbone(spec)
            started = time.perf_counter()
            accelerate(theirs, precision)  # type: ignore[arg-type]
            made = time.perf_counter() - started
            times: dict[str, list[float]] = {"torch": [], "openvino": []}
            for at in range(runs + 1):
                for side, backbone in (("torch", ours), ("openvino", theirs)):
                    seconds = core_seconds(backbone, pixels)
                    if at:  # the first is for warming up
                        times[side].append(seconds / len(pixels) * 1000)
            one, other = (statistics.median(times[side]) for side in ("torch", "openvino"))
            least = float(np.min(cosine(theirs.encode(pixels), exact.encode(pixels))))
            found.setdefault(name, {})[precision] = {
                "torch_ms": one,
                "openvino_ms": other,
                "speedup": one / other,
                "least_cosine": least,
                "start_s": made,
            }
            print(
                f"| {name} | {precision} | {one:.1f} | {other:.1f} | {one / other:.2f} | {least:.7f} | "
                f"{made:.1f} |",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where pictures and models are kept")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="try it out; nothing is written")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    count, runs = (48, 1) if options.small else (options.images, options.runs)
    sides = ("torch", "openvino") if options.small else ("torch", "openvino", "auto")
    specs = [*THREE] if options.small else [*THREE, *random_models(options.work)]
    figures: dict[str, Any] = {"images": count, "runs": runs, "cores": CORES}
    figures["forward"] = forward_passes(specs, runs)
    figures["passes"] = whole_passes(pictures(options.work, count), runs, sides)
    if not options.small:
        print(save("runtime", figures))


if __name__ == "__main__":
    main()
