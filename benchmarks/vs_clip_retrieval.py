"""One pass over 512 px PNGs with one CLIP ViT-B/32 checkpoint: clip-retrieval 2.45 against `extract`.

    python -m venv theirs && theirs/bin/pip install clip-retrieval==2.45 'setuptools<70'
    python benchmarks/vs_clip_retrieval.py --theirs theirs/bin/python --work DIR

Whole commands from start to files on disk, in turn, each `--runs` times; medians. The weights are random and
saved once: both load the same numbers. Writes `results/vs_clip_retrieval.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from system import save

THEIRS = """
from clip_retrieval import clip_inference
clip_inference(
    input_dataset={images!r}, output_folder={out!r}, input_format="files", enable_text=False,
    enable_image=True, clip_model={model!r}, num_prepro_workers={workers}, batch_size=256,
    write_batch_size=100000, clip_cache_path={work!r},
)
"""


def picture(seed: int) -> Image.Image:
    """Draw a 512 px picture that as a PNG has about the size a generator's have: noise of several octaves."""
    rng = np.random.default_rng(seed)
    summed = np.zeros((512, 512, 3), np.float32)
    for size, weight in ((4, 90), (16, 50), (64, 25), (256, 8)):
        noise = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        grown = np.asarray(Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC), np.float32)
        summed += (grown / 255 - 0.5) * weight
    return Image.fromarray(np.clip(summed + 128, 0, 255).astype(np.uint8))


def draw(folder: Path, count: int) -> None:
    """Write seeded PNGs that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / f"{i:05d}.png"
        if not path.exists():
            picture(i).save(path)


def weights(folder: Path) -> tuple[Path, Path]:
    """Save one seeded random ViT-B/32 as open_clip's folder and as a plain checkpoint."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    model, checkpoint = folder / "model", folder / "vit_b_32.pt"
    if not checkpoint.exists():
        torch.manual_seed(0)
        made = open_clip.create_model("ViT-B-32")
        model.mkdir(parents=True, exist_ok=True)
        config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
        (model / "open_clip_config.json").write_text(json.dumps(config))
        save_file(made.state_dict(), model / "open_clip_model.safetensors")
        torch.save(made.state_dict(), checkpoint)
    return model, checkpoint


def run(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a whole command; wall seconds, core seconds, and the largest process's peak memory."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        sys.exit(f"{command} failed:\n{said.decode()[-3000:]}")
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--theirs", required=True, help="python of an environment with clip-retrieval 2.45")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    images, work = options.work / f"images-{options.images}", options.work
    draw(images, options.images)
    model, checkpoint = weights(work)
    out = {name: work / name for name in ("theirs", "bf16", "fp32")}
    theirs = THEIRS.format(
        images=str(images),
        out=str(out["theirs"]),
        model=f"open_clip:ViT-B-32/{checkpoint}",
        workers=os.cpu_count(),
        work=str(work),
    )
    ours = [sys.executable, "-m", "img2prompt_cache.cli", "extract", str(images), "--format", "folder"]
    ours += ["--backbone", f"open_clip:local-dir:{model}", "--encoder", "packaged:all-MiniLM-L6-v2"]
    commands = {
        "theirs": [options.theirs, "-c", theirs],
        "bf16": [*ours, "--cache", str(out["bf16"])],
        "fp32": [*ours, "--cache", str(out["fp32"]), "--precision", "fp32"],
    }
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(options.runs):
        for name, command in commands.items():
            shutil.rmtree(out[name], ignore_errors=True)
            figures[name].append(run(command, dict(os.environ)))
            print(name, {key: round(value, 1) for key, value in figures[name][-1].items()}, flush=True)
    median: dict[str, Any] = {
        name: {key: statistics.median(taken[key] for taken in runs) for key in runs[0]}
        for name, runs in figures.items()
    }
    ratios = {name: median["theirs"]["wall_s"] / median[name]["wall_s"] for name in ("bf16", "fp32")}
    print("| | seconds | images/s | peak MB | times faster |\n|---|---|---|---|---|")
    for name, label in (
        ("theirs", "clip-retrieval 2.45"),
        ("bf16", "extract, default"),
        ("fp32", "extract, fp32"),
    ):
        wall = median[name]["wall_s"]
        print(
            f"| {label} | {wall:.1f} | {options.images / wall:.1f} | {median[name]['peak_mb']:.0f} | "
            f"{ratios.get(name, 1):.2f} |"
        )
    print(
        save(
            "vs_clip_retrieval",
            {"images": options.images, "runs": figures, "median": median, "ratios": ratios},
        )
    )


if __name__ == "__main__":
    main()
