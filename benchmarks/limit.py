"""The whole pass against its limit: (decode core-seconds + forward core-seconds) ÷ cores.

    python benchmarks/limit.py --work DIR [--images 512]

Every figure is of one run on the same 512 px images, as PNG and as JPEG, with random weights of the real
architectures in the default precision; medians of `--runs`. Also: forward alone against the rate of one
bfloat16 product, and three backbones in one pass against three passes. Writes `results/limit.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from system import save
from vs_clip_retrieval import draw

from img2prompt_cache.extraction.encode import encode_batches
from img2prompt_cache.extraction.work import Slice
from img2prompt_cache.images.decode import decode
from img2prompt_cache.models.backbones import load_backbone
from img2prompt_cache.models.backbones.flops import operations
from img2prompt_cache.models.devices import choose_precision, cores
from img2prompt_cache.sources import open_source

BATCH = 32
ARCHITECTURES = {"resnet50": "resnet50", "vit_b_16": "vit_base_patch16_224", "clip_b_32": "ViT-B-32"}


def local(folder: Path, name: str) -> str:
    """Save seeded random weights of an architecture; give the spec that loads them."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    architecture = ARCHITECTURES[name]
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    if name.startswith("clip"):
        import open_clip

        config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
        (place / "open_clip_config.json").write_text(json.dumps(config))
        save_file(open_clip.create_model(architecture).state_dict(), place / "open_clip_model.safetensors")
        return f"open_clip:local-dir:{place}"
    import timm

    (place / "config.json").write_text(json.dumps({"architecture": architecture, "num_classes": 0}))
    save_file(timm.create_model(architecture, num_classes=0).state_dict(), place / "model.safetensors")
    return f"timm:local-dir:{place}"


def in_lanes(work: Callable[[int], object], count: int) -> float:
    """Seconds that `count` pieces of work take, one thread a core, each computing alone."""
    with ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, range(cores())))
        started = time.perf_counter()
        list(pool.map(work, range(count)))
        return time.perf_counter() - started


def gemm_rate(kind: torch.dtype = torch.bfloat16) -> float:
    """Rate of a matrix product of the size of ViT-B/16's, in Gflop/s over all cores."""
    left, right = torch.randn(BATCH * 197, 768).to(kind), torch.randn(3072, 768).to(kind)
    flops = 2 * left.shape[0] * 768 * 3072
    return 40 * flops / in_lanes(lambda _: torch.nn.functional.linear(left, right), 40) / 1e9


def measure(folders: dict[str, Path], specs: dict[str, str]) -> dict[str, Any]:
    """One run of everything: forward passes alone, then decoding and whole passes of each kind of file."""
    backbones = {
        name: load_backbone(spec, precision=choose_precision("auto", "cpu")) for name, spec in specs.items()
    }
    count = len(list(next(iter(folders.values())).iterdir()))
    batches = range(-(-count // BATCH))
    found: dict[str, Any] = {"images": count, "gemm_gflops": gemm_rate()}
    forward = {}
    for name, backbone in backbones.items():
        pixels = torch.zeros(BATCH, *backbone.geometry.crop, 3, dtype=torch.uint8)
        work = lambda _, backbone=backbone, pixels=pixels: backbone.encode(pixels)  # noqa: E731
        forward[name] = in_lanes(work, len(batches)) * cores()
        rate = operations(backbone) * len(batches) * BATCH / (forward[name] / cores()) / 1e9
        found[name] = {"forward_gflops": rate, "of_gemm": rate / found["gemm_gflops"]}
    for kind, folder in folders.items():
        source = open_source(folder)
        table = source.list().table
        rows = Slice(0, 0, {name: table[name].to_pylist() for name in ("imgId", "uri")})
        files = [source.read(uri) for uri in rows.text["uri"]]
        wholes = {}
        for names in (*([name] for name in specs), list(specs)):
            chosen = {specs[name]: backbones[name] for name in names}
            geometries = {backbone.geometry for backbone in chosen.values()}

            def decode_batch(i: int, files: list[bytes] = files, geometries: set[Any] = geometries) -> None:
                for data in files[i * BATCH : (i + 1) * BATCH]:
                    picture = decode(data)
                    for geometry in geometries:
                        geometry.apply(picture)

            decoding = in_lanes(decode_batch, len(batches)) * cores()
            started = time.perf_counter()
            for _ in encode_batches(rows, source, chosen, BATCH):
                pass
            whole = wholes["+".join(names)] = time.perf_counter() - started
            encoding = sum(forward[name] for name in names)
            limit = (decoding + encoding) / cores()
            found[f"{kind} {'+'.join(names)}"] = {
                "decode_core_s": decoding,
                "forward_core_s": encoding,
                "limit_s": limit,
                "whole_s": whole,
                "ratio": whole / limit,
            }
        found[f"{kind}, three passes over one"] = sum(wholes[n] for n in specs) / wholes["+".join(specs)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if options.images % (BATCH * cores()):  # a batch left over would have one core idle, and flatter the pass
        parser.error(f"--images must be a multiple of {BATCH * cores()}")
    pngs, jpegs = (options.work / f"{kind}-{options.images}" for kind in ("png", "jpeg"))
    draw(pngs, options.images)
    jpegs.mkdir(exist_ok=True)
    for path in pngs.iterdir():
        with Image.open(path) as picture:
            picture.save(jpegs / f"{path.stem}.jpg", quality=90)
    specs = {name: local(options.work / "models", name) for name in ARCHITECTURES}
    runs = [measure({"png": pngs, "jpeg": jpegs}, specs) for _ in range(options.runs)]
    print("| pass | decode core-s | forward core-s | limit s | whole s | whole ÷ limit |")
    print("|---|---|---|---|---|---|")
    median: dict[str, Any] = {}
    for key, value in runs[0].items():
        if not isinstance(value, dict):
            median[key] = statistics.median(run[key] for run in runs)
            continue
        m = median[key] = {name: statistics.median(run[key][name] for run in runs) for name in value}
        if "ratio" in m:
            print(
                f"| {key} | {m['decode_core_s']:.1f} | {m['forward_core_s']:.1f} | {m['limit_s']:.1f} | "
                f"{m['whole_s']:.1f} | {m['ratio']:.3f} |"
            )
    print({key: value for key, value in median.items() if "ratio" not in str(value)})
    print(save("limit", {"runs": runs, "median": median}))
    shutil.rmtree(options.work / "models")


if __name__ == "__main__":
    main()
